//go:build linux

package upgrade_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

// The versions of the program deploy are copies of the test binary. A word
// after the last byte selects the behaviour of the version.
const tail = "version: "

func ownVersion() string {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		log.Fatal(err)
	}
	at := bytes.LastIndex(exe, []byte("\n"+tail))
	if at < 0 {
		log.Fatal("no version")
	}
	return string(exe[at+1+len(tail):])
}

func init() {
	preforktest.Register("deploy", deploy)
	preforktest.Register("sizedSite", sizedSite)
	preforktest.Register("warming", warming)
}

// deploy is a server whose program file is replaced while it runs.
func deploy() {
	version := ownVersion()
	switch version {
	case "exits":
		os.Exit(3)
	case "leaves":
		os.Exit(0)
	case "panics":
		panic("as this version does")
	case "hangs":
		time.Sleep(time.Hour)
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, ReloadBinary: true, ErrRespawnInterval: -1, WorkerShutdown: true,
		Readiness: prefork.Readiness{Explicit: true, Timeout: 5 * time.Second}, UpgradeTimeout: 8 * time.Second,
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term}, syscall.SIGUSR2: {Upgrade: true},
		},
	})
	ln, err := pm.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("%s %d at %s", version, os.Getpid(), ln.Addr())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		switch version {
		case "is never ready":
			<-w.Context().Done()
			return nil
		case "asks for a shutdown":
			w.ShutdownPool(3, "no model")
			<-w.Context().Done()
			return nil
		case "is half ready":
			if w.Slot() > 0 {
				os.Exit(4)
			}
		case "crashes when ready":
			if w.Slot() > 0 {
				// Otherwise all workers might be ready for a moment, which is enough.
				<-w.Context().Done()
				return nil
			}
		}
		w.Ready()
		if version == "crashes when ready" {
			os.Exit(5)
		}
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, "%s %d", version, w.ManagerPID())
		})})
	}); err != nil {
		log.Fatal(err)
	}
}

// site is a running deploy program with clients that count failures.
type site struct {
	*preforktest.Program
	t            *testing.T
	binary, addr string
	manager      string
}

func newSite(t *testing.T) *site {
	s := &site{t: t, binary: filepath.Join(testprog.SocketDir(t), "deploy")}
	t.Cleanup(func() { os.Remove(s.binary) })
	s.install("good 1")
	s.Program = preforktest.New(t, "deploy", "127.0.0.1:0")
	s.Program.Cmd.Path, s.Program.Cmd.Args[0] = s.binary, s.binary
	s.Program.Start()
	s.began("good 1")
	s.ExpectN(2, "worker ready")
	return s
}

// began waits for the first line of a manager.
func (s *site) began(version string) {
	s.t.Helper()
	found := s.Expect(`^` + version + ` (\d+) at (\S+)$`)
	if s.addr != "" && found[2] != s.addr {
		s.t.Errorf("the successor serves at %s, not at %s", found[2], s.addr)
	}
	s.manager, s.addr = found[1], found[2]
}

// install replaces the program file atomically, as a deployment does.
func (s *site) install(version string) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(exe)
	if err == nil {
		err = s.put(append(text, "\n"+tail+version...))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) put(text []byte) error {
	if err := os.WriteFile(s.binary+".new", text, 0o700); err != nil {
		return err
	}
	return os.Rename(s.binary+".new", s.binary)
}

// cut installs a truncated version. It is another file: a running program
// cannot be written.
func (s *site) cut() error {
	text, err := os.ReadFile(s.binary)
	if err != nil {
		return err
	}
	return s.put(text[:100_000])
}

func (s *site) kill(sig syscall.Signal) {
	s.t.Helper()
	pid, err := strconv.Atoi(s.manager)
	if err == nil {
		err = syscall.Kill(pid, sig)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// awaitVersion waits until ten answers in a row come from a version: a worker that is
// being replaced accepts its queue.
func (s *site) awaitVersion(version string) {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	preforktest.WaitFor(s.t, "all answers are those of "+version, func() bool {
		for range 10 {
			resp, err := client.Get("http://" + s.addr)
			if err != nil {
				s.t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != version+" "+s.manager {
				return false
			}
		}
		return true
	})
}

// New programs fail in many ways, as a new generation and as a successor. The
// old workers serve every request throughout, and the next working version
// takes over.
func TestBadPrograms(t *testing.T) {
	s := newSite(t)
	clients := loadgen.Start(loadgen.Config{Network: "tcp", Address: s.addr, KeepAlive: 3, Fresh: 2, Pause: func() time.Duration { return 5 * time.Millisecond }, MaxTime: 5 * time.Minute})
	bad := []string{"exits", "leaves", "panics", "hangs", "is never ready", "is half ready", "crashes when ready"}
	for _, version := range bad {
		s.install(version)
		s.kill(hup)
		s.Expect(`new generation failed`)
		s.kill(syscall.SIGUSR2)
		s.Expect(`upgrade failed`)
		s.awaitVersion("good 1")
	}
	for _, broken := range []func() error{
		func() error { return os.Chmod(s.binary, 0o600) },
		s.cut,
		func() error { return os.Remove(s.binary) },
		func() error { return os.Mkdir(s.binary, 0o700) },
	} {
		if err := broken(); err != nil {
			t.Fatal(err)
		}
		s.kill(hup)
		s.Expect(`reload failed`)
		s.kill(usr1) // workers that stop at once
		s.Expect(`reload failed`)
		s.kill(syscall.SIGUSR2)
		s.Expect(`upgrade failed`)
		s.awaitVersion("good 1")
	}
	os.Remove(s.binary)
	for i, how := range []string{"rolled", "all at once", "upgraded"} {
		version := fmt.Sprintf("good %d", i+2)
		s.install(version)
		switch how {
		case "rolled":
			s.kill(hup)
			s.Expect(`workers replaced`)
		case "all at once":
			s.kill(usr1)
			s.ExpectN(2, `worker ready`)
		case "upgraded":
			s.kill(syscall.SIGUSR2)
			s.began(version)
			s.Expect(`successor has taken over`)
			s.Wait()
		}
		s.awaitVersion(version)
	}
	result := clients.Stop()
	s.kill(term)
	s.WaitGone()
	t.Logf("%d bad programs, each as a generation and as a successor: %v", len(bad)+4, result)
	if result.Failed > 0 || result.OK < 1000 {
		t.Errorf("failed %d of %d: %v", result.Failed, result.OK, result.Errors)
	}
}

// A worker of a successor that asks for a shutdown ends the successor only. The
// reason is in the log of the manager, which continues.
func TestSuccessorWhoseWorkerShutsDown(t *testing.T) {
	s := newSite(t)
	s.install("asks for a shutdown")
	s.kill(syscall.SIGUSR2)
	s.Expect(`upgrade failed.*worker \d+ \(slot \d, generation 1\) requested a shutdown with code 3: no model`)
	s.awaitVersion("good 1")
	s.kill(term)
	testprog.ExpectSuccess(t, s.Program)
}

// The manager keeps only the binary open that the newest generation runs.
func TestBinariesAreClosed(t *testing.T) {
	s := newSite(t)
	for i := range 3 {
		version := fmt.Sprintf("good %d", i+2)
		s.install(version)
		s.kill(hup)
		s.Expect(`workers replaced`)
		s.awaitVersion(version)
	}
	preforktest.WaitFor(t, "one binary is open", func() bool {
		files, err := preforktest.Descriptors(s.PID())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, name := range files {
			if strings.HasPrefix(name, s.binary) {
				n++
			}
		}
		return n == 1
	})
	s.kill(term)
	s.WaitGone()
}

// sizedSite is a dynamically sized pool with a large MaxWorkers.
func sizedSite() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 10, MinSpareWorkers: 2, UpgradeTimeout: 30 * time.Second,
		TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}},
	})
	if !prefork.IsWorker() {
		testprog.Print("manager %d", os.Getpid())
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// A successor with a dynamically sized pool is ready when it has as many
// workers as it wants, not MaxWorkers.
func TestUpgradeOfASizedPool(t *testing.T) {
	p := preforktest.Start(t, "sizedSite")
	p.Expect(`^manager `)
	p.ExpectN(2, `worker ready`)
	p.Signal(syscall.SIGUSR2)
	successor, err := strconv.Atoi(p.Expect(`^manager (\d+)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	p.Expect(`successor has taken over`)
	p.Wait()
	syscall.Kill(successor, term)
	p.WaitGone()
}

// warming has two workers that become ready just before Readiness.Timeout.
func warming() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, Readiness: prefork.Readiness{Explicit: true, Timeout: 4 * time.Second}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("warms up")
		time.Sleep(300 * time.Millisecond)
		w.Ready()
		<-w.Context().Done()
		return nil
	})
}

// A manager that was suspended while its workers became ready does not kill
// them for a ReadyTimeout.
func TestReadyWhileManagerSuspended(t *testing.T) {
	p := preforktest.Start(t, "warming")
	p.ExpectN(2, `^warms up`)
	thaw := preforktest.Freeze(t, p.PID())
	time.Sleep(4200 * time.Millisecond) // longer than the workers' timeout
	thaw()
	p.ExpectN(2, `worker (ready|killed)`)
	p.Signal(term)
	p.Wait()
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}
