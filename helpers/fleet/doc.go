// Package fleet groups the nodes of a fleet by what the lab has observed on them: the nodes of a group have the same facts.
//
// [Read] finds the results: in directories, files and streams. [New] makes the groups, and compares each with the larger group that is
// nearest to it. The rest writes them as text, page and CSV.
package fleet
