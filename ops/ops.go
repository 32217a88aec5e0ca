// Package ops makes a prefork program operable with one line: a control socket, by
// which the command prefork shows and steers a running manager, and the
// notifications of systemd.
//
//	pm, err := prefork.New(cfg)
//	if err != nil { log.Fatal(err) }
//	defer ops.Attach(pm)()
//
// Programs that want other settings, or the errors, use the parts: packages
// control and systemd.
package ops

import (
	"errors"
	"sync"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/systemd"
)

// Attach serves the control socket of Managers at its default place, and notifies
// systemd if it started the program. It should be called after prefork.New, and
// before Listen and Run; all Managers of a program belong in one call. Detach should
// be called after Run: it answers clients that wait for the stop.
//
// A failure is one warning in the first Manager's log, and never keeps the program
// from running. In a worker Attach and detach are no-ops. Detach blocks for up to
// two seconds.
func Attach(pms ...*prefork.Manager) (detach func()) {
	if prefork.IsWorker() || len(pms) == 0 {
		return func() {}
	}
	closeSocket, socketErr := control.Attach(control.Config{}, pms...)
	closeSystemd, systemdErr := systemd.Attach(systemd.Config{}, pms...)
	if err := errors.Join(socketErr, systemdErr); err != nil {
		pms[0].Config().Logger.Warn("control socket or systemd notifications unavailable", "err", err)
	}
	return sync.OnceFunc(func() {
		closeSocket()
		closeSystemd()
	})
}
