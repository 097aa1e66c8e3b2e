//go:build linux

// Package cdblab is the lab.
package cdblab
