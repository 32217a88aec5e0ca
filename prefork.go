// Package prefork keeps a pool of worker processes. A [Manager] starts its own
// program again as MaxWorkers workers, keeps them alive, and maps each signal
// that it receives to one for the workers by a table, so that reload and
// shutdown are a few plain lines in the program's own main loop. Listening
// sockets are bound once and inherited. It is a port of Perl's Parallel::Prefork.
//
//	func main() {
//		pm, err := prefork.New(prefork.Config{MaxWorkers: 4, TrapSignals: prefork.Signals{
//			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop
//			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers
//		}})
//		if err != nil {
//			log.Fatal(err)
//		}
//		for pm.SignalReceived() != syscall.SIGTERM {
//			if !prefork.IsWorker() {
//				pm.Pass(loadConfig()) // read once for each generation of workers, in the manager
//			}
//			pm.StartFunc(func(w *prefork.Worker) error { return work(w.Context(), w.Passed()) })
//		}
//		pm.WaitAllChildren(context.Background())
//	}
//
// [Manager.Run] is the same loop in one call, and [Manager.Start] its parts.
//
// # What runs twice
//
// A worker is not a fork of the manager but a new process of the same program.
// The code of main before Start, StartFunc or Run therefore runs once in the
// manager and once in each worker. The library's own calls do the right thing in
// both: New adopts the sockets and bytes of the manager, Listen returns the
// socket that the manager bound, and Pass is a no-op. Code that must run only once, such as a
// migration or writing a pid file, should be guarded by [IsWorker]. Deferred
// calls of main do not run in a worker, which ends by os.Exit.
//
// Workers and successors start in the directory in which the program was started,
// so a relative os.Chdir of main works again. Their environment is that of the
// manager when it starts them: a variable that main removes is missing in the
// second run too.
//
// # Processes and goroutines
//
// In the manager one goroutine owns all state: the one inside a blocking call
// (Start, StartFunc, Run, WaitAllChildren, Upgrade). It spawns and reaps workers,
// forwards signals and runs the hooks. Between two blocking calls none of that
// happens, and nothing is lost: signals and exited workers wait for the next
// call. All other methods are safe for concurrent use, do not block, and take
// effect at the loop's next turn.
package prefork

import (
	"errors"
	"fmt"
	"os"

	"github.com/prefork-go/prefork/internal/self"
	"github.com/prefork-go/prefork/internal/sockets"
	"github.com/prefork-go/prefork/internal/wire"
)

// process is this process, and inherited are the sockets that it was started
// with. They are the package's only state. In a process that no manager started,
// the initialization reads environment variables and the working directory.
var process, inherited = initialize()

func initialize() (*self.Process, *sockets.Inherited) {
	p := self.Read()
	in := sockets.NewInherited(p.Marker.Sockets, func(group int) { p.Send(wire.ListenerClosed{Socket: group}) })
	p.Follow(in)
	return p, in
}

// IsWorker reports whether this process was started as a worker by a Manager. It
// is safe for concurrent use, also before New.
func IsWorker() bool { return process.IsWorker() }

// PassFile makes the successor of an upgrade inherit f; see Manager.Upgrade. The
// successor gets it from PassedFile under the same name. A nil f withdraws the
// name. The file must stay open until the upgrade; a closed file is left out. A
// successor that should pass it on again must call PassFile itself. In a worker
// PassFile is a no-op. PassFile is safe for concurrent use, also before
// New.
func PassFile(name string, f *os.File) { process.PassFile(name, f) }

// PassedFile returns the file that the predecessor of this process passed under
// the given name. It returns nil if there is none, in a process that is not a
// successor, and for the second call with the same name: the file belongs to the
// caller. Files that the program has not asked for are closed when the successor
// takes over. PassedFile is safe for concurrent use, also before New.
//
// The file is a duplicate of the predecessor's: both share the file offset, the
// file status flags, and a lock by flock.
func PassedFile(name string) *os.File { return process.PassedFile(name) }

// TookOver returns a channel that is closed when this process, a successor, has
// taken over, or its predecessor is gone. In a manager that is not a successor it
// is closed from the beginning. TookOver is safe for concurrent use, also before
// New.
func TookOver() <-chan struct{} { return process.TookOver() }

// HandedOver reports whether a successor has taken over from this process. The
// passed files then belong to the successor. HandedOver is safe for concurrent
// use.
func HandedOver() bool { return process.HandedOver.Load() }

// ErrCrashLoop is returned by Run and WaitAllChildren if the Manager has shut
// down because its workers kept failing; see Config.CrashLoop.
var ErrCrashLoop = errors.New("prefork: crash loop")

// ErrNotInherited is returned by Listen if the process was not started with the
// requested socket, and must not bind it itself.
var ErrNotInherited = sockets.ErrNotInherited

// misuse panics for a call that can never be right, since no caller could handle
// an error.
func misuse(format string, args ...any) {
	panic("prefork: " + fmt.Sprintf(format, args...))
}
