//go:build linux

package ctrd

import (
	"time"

	"cdblab/helpers/lab"
	"cdblab/helpers/systemd"
)

// service is how systemd runs a daemon.
type service struct {
	*systemd.Unit
	properties []string
}

// StartAsService is [Start] for a containerd that systemd runs, as a service with properties such as "KillMode=process". When the
// question ends, the service is stopped with all processes of its cgroup.
func StartAsService(q *lab.Q, unit *systemd.Unit, properties []string, options ...Option) *Daemon {
	q.Helper()
	return start(q, "", &service{unit, append([]string{"Type=notify"}, properties...)}, options)
}

// start starts the service, and waits until the daemon answers.
func (s *service) start(daemon *server, containerd string) error {
	begin := time.Now()
	output := "append:" + daemon.logPath()
	properties := append([]string{"StandardOutput=" + output, "StandardError=" + output}, s.properties...)
	if s.Loaded() { // it was stopped, and has processes still
		s.Do("start")
	} else {
		s.Run(properties, append([]string{containerd}, daemon.argv()[1:]...)...)
	}
	return daemon.waitReady(begin)
}

// Restart restarts the service of the daemon, and waits until the new daemon answers.
func (d *Daemon) Restart() {
	d.q.Helper()
	begin := time.Now()
	d.service.Do("restart")
	if err := d.server.waitReady(begin); err != nil {
		d.q.Fatal(err)
	}
	d.rememberPrograms()
	d.connect()
}

// RunBy has the next [Daemon.Start] start the daemon as another service.
func (d *Daemon) RunBy(unit *systemd.Unit, properties ...string) {
	d.service = &service{unit, append([]string{"Type=notify"}, properties...)}
}
