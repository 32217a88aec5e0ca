package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/port"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("mentions", mentions)
	preforktest.Register("portAtInit", portAtInit)
}

// mentions imports the package and calls nothing but IsWorker, as a program that
// only reads a journal does.
func mentions() {
	cfg := prefork.Config{MaxWorkers: 1}
	var children strings.Builder
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range tasks {
		list, _ := os.ReadFile(path)
		children.Write(list)
	}
	_, err := os.Stat("/proc/2")
	testprog.Print("main: pid %d, worker %t, children %q of %d threads, other processes %t, %d",
		os.Getpid(), prefork.IsWorker(), children.String(), min(len(tasks), 1), err == nil, cfg.MaxWorkers)
}

// Importing the package does nothing, also in process 1: its main runs there, and
// has no child. New makes the reaper that process 1 must be (TestReaper).
func TestImportDoesNothingInProcess1(t *testing.T) {
	p := preforktest.New(t, "mentions").AsInit().Start()
	p.Expect(fmt.Sprintf(`^main: pid 1, worker false, children %q of 1 threads, other processes false, 1$`, ""))
	testprog.ExpectSuccess(t, p)
}

// portAtInit prints whether it has the port that a package opened before main.
func portAtInit() {
	testprog.NewManager(prefork.Config{Reaper: true})
	testprog.Print("port %t, %v", port.Listener != nil, port.Err)
}

// A package that opens a port during its initialization does not open it in the
// reaper, below which the program would then find it in use.
func TestReaperInitializesNoNetwork(t *testing.T) {
	p := preforktest.New(t, "portAtInit")
	p.Cmd.Env = append(os.Environ(), fmt.Sprintf("PORT_OF_TEST=@%s %d", t.Name(), os.Getpid()))
	p.Start()
	p.Expect(`^port true, <nil>$`)
	testprog.ExpectSuccess(t, p)
}
