//go:build linux

package ctrd

import (
	"errors"
	"os/exec"
	"path/filepath"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// sharedServer returns the containerd that questions share. It starts when the first question asks for it.
func sharedServer(session *lab.Session) (*server, error) {
	return lab.Once(session, "containerd", func() (*server, error) { return startSharedServer(session) })
}

// startSharedServer starts the containerd that questions share, and registers how the session stops it.
func startSharedServer(session *lab.Session) (*server, error) {
	dir, err := session.Mkdir("containerd")
	if err != nil {
		return nil, err
	}
	s, err := newServer(session, session, dir, configuration{}, func(argv ...string) (*exec.Cmd, error) {
		return session.Cmd(filepath.Dir(dir), argv...)
	})
	if err != nil {
		return nil, err
	}
	session.Cleanup(func() error {
		errs := []error{s.stop()}
		dirs := []string{dir}
		if s.SocketDir != defaultSocketDir {
			dirs = append(dirs, s.SocketDir)
		}
		for _, d := range dirs {
			_, err := host.Remove(d)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return s, s.start()
}

// Shared returns a containerd that the question shares with other questions. It is for questions that neither end nor
// configure the daemon. The question has a containerd namespace of its own in it, which is removed with everything in
// it when the question ends.
func Shared(q *lab.Q) *Daemon {
	q.Helper()
	s, err := sharedServer(q.Session())
	if err != nil {
		q.Fatal(err)
	}
	d := &Daemon{server: s, Namespace: q.ID(Namespace), q: q, shared: true, FifoDir: q.Mkdir("fifo")}
	q.LogCommandAs("containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &   # for all questions, in "+filepath.Dir(s.dir),
		"test -S "+s.Address+" || { mkdir -p "+s.dir+" "+s.SocketDir+" && cd "+filepath.Dir(s.dir)+" && cat > containerd/config.toml <<'END'\n"+
			s.toml+"END\ncontainerd --config containerd/config.toml --address "+s.Address+" 2>> containerd/log & sleep 1; }\n"+
			"mkdir -p "+q.Dir+"/fifo; cd "+q.Dir)
	q.Export("CONTAINERD_ADDRESS", s.Address)
	d.useOverlayfs()
	q.SuggestCommand("ctr -n " + d.Namespace + " tasks ls")
	d.registerCleanUp()
	d.connect()
	return d
}
