// Package early makes this process a reaper, if New has executed the program for
// that, or a guard has started it, before most packages of the program are initialized.
//
// Go initializes packages in the order of their import paths, each as soon as its
// imports are. This one does not import net, and net itself waits for a package
// whose path begins with vendor. So a package that imports net, directly or not,
// comes later: its ports and goroutines are not in the reaper.
package early

import (
	"os"

	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/reaper"
)

func init() {
	value := os.Getenv(marker.ReaperEnv)
	if !reaper.Supported || value == "" {
		return
	}
	var cfg reaper.Config
	above, err := marker.ParseReaper(value)
	switch {
	case value == marker.BecomeReaper(os.Getpid()):
	case value == marker.BecomeGuard(os.Getpid()):
		cfg.Kill = true
	case err == nil && above.Become:
		if cfg.Guard, err = reaper.Join(above.PID, above.FD); err != nil {
			return
		}
		cfg.Kill = true
	default:
		return
	}
	exe, err := binary.Executable()
	if err != nil {
		return
	}
	os.Unsetenv(marker.ReaperEnv)
	proc.ReserveThreads()
	cfg.Path, cfg.Args, cfg.Env = exe, os.Args, os.Environ()
	cfg.LinkEnv = func(pid, fd int) string {
		link := marker.Reaper{PID: pid, FD: fd, Become: cfg.Kill && cfg.Guard == nil}
		if cfg.Guard != nil {
			link.Guard = above.PID
		}
		return marker.ReaperEnv + "=" + link.String()
	}
	reaper.Run(cfg)
}
