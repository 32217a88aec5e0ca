//go:build unix

package ops_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){"one": one, "two": two})
}

// one is a program with the one line.
func one() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Logger: logger()})
	if err != nil {
		testprog.Print("new: %v", err)
		return
	}
	defer ops.Attach(pm)()
	run(pm)
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func run(pm *prefork.Manager) {
	pm.Run(context.Background(), work)
}

func work(w *prefork.Worker) error {
	testprog.Print("working")
	<-w.Context().Done()
	return nil
}

// two is a program with two pools; that of queue is in a Start loop.
func two() {
	var pms []*prefork.Manager
	for _, name := range []string{"web", "queue"} {
		pm, err := prefork.New(prefork.Config{Name: name, MaxWorkers: 1, Logger: logger()})
		if err != nil {
			testprog.Print("new: %v", err)
			return
		}
		pms = append(pms, pm)
	}
	detach := ops.Attach(pms...)
	ended := make(chan bool)
	go func() {
		run(pms[0])
		close(ended)
	}()
	testprog.UntilTerm(pms[1], work)
	<-ended
	detach()
}

// newProgram returns a program that can have a socket only in the directory.
func newProgram(t *testing.T, name string) (p *preforktest.Program, dir string) {
	t.Helper()
	dir = testprog.SocketDir(t)
	p = preforktest.New(t, name)
	p.Cmd.Env = append(p.Cmd.Env, "RUNTIME_DIRECTORY="+dir, "NOTIFY_SOCKET=", client.EnvSocket+"=")
	return p, dir
}

// warnings returns the warnings that the program, which has ended, has logged.
func warnings(p *preforktest.Program) (all []string) {
	p.WaitGone() // the last lines
	for _, line := range p.Lines() {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			all = append(all, line)
		}
	}
	return all
}

func TestOneLine(t *testing.T) {
	p, dir := newProgram(t, "one")
	p.Start()
	p.Expect("working")
	files, err := filepath.Glob(filepath.Join(dir, "*.prefork.sock"))
	if err != nil || len(files) != 1 {
		t.Fatalf("sockets %q", files)
	}
	c, err := client.Dial(files[0])
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(context.Background(), client.StatusOptions{})
	if err != nil || st.PID != p.PID() {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := c.Do(context.Background(), client.Command{Name: "stop"}); err != nil {
		t.Error(err)
	}
	testprog.ExpectSuccess(t, p)
	if w := warnings(p); len(w) != 0 {
		t.Errorf("%q", w)
	}
}

func TestTwoPools(t *testing.T) {
	p, dir := newProgram(t, "two")
	p.Start()
	p.ExpectN(2, "^working$")
	checkTwoPools(t, filepath.Join(dir, "web.prefork.sock"))
	testprog.ExpectSuccess(t, p)
}

// The same as process 1, below its reaper.
func TestTwoPoolsAsInit(t *testing.T) {
	p, dir := newProgram(t, "two")
	p.AsInit().Start()
	p.ExpectN(2, "^working$")
	checkTwoPools(t, filepath.Join(dir, "web.prefork.sock"))
	testprog.ExpectSuccess(t, p)
}

// A program that is started twice has two sockets with two names.
func TestStartedTwice(t *testing.T) {
	p, dir := newProgram(t, "two")
	p.Start()
	p.ExpectN(2, "^working$")
	second := preforktest.New(t, "two")
	second.Cmd.Env = p.Cmd.Env
	second.Start()
	second.ExpectN(2, "^working$")
	checkTwoPools(t, filepath.Join(dir, fmt.Sprintf("web-%d.prefork.sock", second.PID())))
	testprog.ExpectSuccess(t, second)
	checkTwoPools(t, filepath.Join(dir, "web.prefork.sock"))
	testprog.ExpectSuccess(t, p)
}

// checkTwoPools looks at a program of two pools, and reloads and stops it.
func checkTwoPools(t *testing.T, socket string) {
	t.Helper()
	c, err := client.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Wait(context.Background(), "settled", "", time.Minute); err != nil || !ok {
		t.Errorf("settled: %t, %v", ok, err)
	}
	st, err := c.Status(context.Background(), client.StatusOptions{})
	if err != nil || len(st.Pools) != 2 || st.Pools[0].Name != "web" || st.Pools[1].Name != "queue" {
		t.Errorf("%+v, %v", st, err)
	}
	if a, err := c.Do(context.Background(), client.Command{Name: "reload"}); err != nil || a.Outcome != client.Done || len(a.Pools) != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := c.Do(context.Background(), client.Command{Name: "stop"}); err != nil || a.Outcome != client.Done {
		t.Errorf("%+v, %v", a, err)
	}
}

// A failure is one warning, and the program runs.
func TestNothingToBeHad(t *testing.T) {
	for _, env := range []string{client.EnvSocket + "=/no/such/directory/x", client.EnvSocket + "=/" + strings.Repeat("x", 200), client.EnvSocket + "=/dev/null"} {
		t.Run(env[:24], func(t *testing.T) {
			p, _ := newProgram(t, "one")
			p.Cmd.Env = append(p.Cmd.Env, env, "NOTIFY_SOCKET=/no/such/socket", "WATCHDOG_USEC=x")
			p.Start()
			p.Expect("working")
			p.Signal(syscall.SIGTERM)
			testprog.ExpectSuccess(t, p)
			all := warnings(p)
			if len(all) != 1 {
				t.Fatalf("%d warnings: %q", len(all), all)
			}
			for _, part := range []string{"level=WARN", "control: no socket: /", "WATCHDOG_USEC", "NOTIFY_SOCKET: "} {
				if !strings.Contains(all[0], part) {
					t.Errorf("no %q in the warning: %s", part, all[0])
				}
			}
		})
	}
}

func TestOff(t *testing.T) {
	p, dir := newProgram(t, "one")
	p.Cmd.Env = append(p.Cmd.Env, client.EnvSocket+"=off")
	p.Start()
	p.Expect("working")
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("%v", files)
	}
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
	p.WaitGone()
	if text := fmt.Sprint(p.Lines()); strings.Contains(text, "control socket") {
		t.Error(text)
	}
}
