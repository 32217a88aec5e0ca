// Package early makes this process a reaper, if New has executed the program for
// that, before most packages of the program are initialized.
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
	if !reaper.Supported || os.Getenv(marker.ReaperEnv) != marker.BecomeReaper(os.Getpid()) {
		return
	}
	exe, err := binary.Executable()
	if err != nil {
		return
	}
	os.Unsetenv(marker.ReaperEnv)
	proc.ReserveThreads()
	reaper.Run(exe, os.Args, os.Environ(), func(pid, fd int) string {
		return marker.ReaperEnv + "=" + marker.BelowReaper(pid, fd)
	})
}
