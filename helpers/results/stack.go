package results

// plain returns a stack without what could change a terminal: a program says its version in its own words.
func (s Stack) plain() *Stack {
	out := Stack{Kernel: plainText(s.Kernel), Machine: plainText(s.Machine), Cgroup: plainText(s.Cgroup), Chapter: plainText(s.Chapter)}
	for _, p := range s.Programs {
		out.Programs = append(out.Programs, Program{
			Name: plainText(p.Name), Version: plainText(p.Version), Path: plainText(p.Path), Digest: plainText(p.Digest), Pinned: p.Pinned,
			Package: plainText(p.Package),
		})
	}
	for _, p := range s.Node {
		out.Node = append(out.Node, Property{plainText(p.Name), plainText(p.Value)})
	}
	return &out
}
