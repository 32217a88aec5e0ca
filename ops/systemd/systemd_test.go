//go:build linux

package systemd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){"unit": unit, "pools": pools})
}

// unit is a service. Files in the directory of its first argument make it
// misbehave, by their names.
func unit() {
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(os.Args[1], name))
		return err == nil
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Signal: syscall.SIGTERM, Rolling: true}, syscall.SIGUSR2: {Upgrade: true},
		},
		Readiness: prefork.Readiness{Explicit: true},
		Reload: func() ([]byte, error) {
			if exists("bad") {
				return nil, errors.New("the configuration\nis bad")
			}
			return nil, nil
		},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
			for exists("hook") {
				time.Sleep(time.Millisecond)
			}
		},
	})
	detach, err := Attach(Config{Ready: All}, pm)
	if err != nil {
		testprog.Print("attach: %v", err)
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		if exists("crash") {
			return errors.New("crash")
		}
		w.Ready()
		<-w.Context().Done()
		return nil
	}); err != nil {
		testprog.Print("run: %v", err)
	}
	detach()
}

// pools is a service with the pools web and queue. Files in the directory of its
// first argument make it misbehave:
//
//	hold   the worker of queue does not get ready until the file is gone
//	hook   BeforeSpawn of queue blocks until the file is gone
//	end    queue is shut down
func pools() {
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(os.Args[1], name))
		return err == nil
	}
	while := func(name string) {
		for exists(name) {
			time.Sleep(time.Millisecond)
		}
	}
	newPool := func(name string) *prefork.Manager {
		return testprog.NewManager(prefork.Config{
			Name: name, MaxWorkers: 1, Readiness: prefork.Readiness{Explicit: true},
			TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Rolling: true}},
			BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
				if name == "queue" {
					while("hook")
				}
			},
		})
	}
	web, queue := newPool("web"), newPool("queue")
	detach, err := Attach(Config{}, web, queue)
	if err != nil {
		testprog.Print("attach: %v", err)
	}
	run := func(pm *prefork.Manager, hold string) {
		pm.Run(context.Background(), func(w *prefork.Worker) error {
			while(hold)
			w.Ready()
			<-w.Context().Done()
			return nil
		})
	}
	ended := make(chan bool)
	go func() {
		run(web, "no such file")
		close(ended)
	}()
	go func() {
		for !exists("end") {
			time.Sleep(time.Millisecond)
		}
		queue.Shutdown()
	}()
	run(queue, "hold")
	testprog.Print("queue has ended")
	<-ended
	detach()
}

func monotonic() int64 {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano() / 1000
}

func TestSequence(t *testing.T) {
	r := newReceiver(t)
	p := r.start()
	pid := p.PID()
	if text := r.expect(pid, "READY=1"); text != "READY=1\nSTATUS=2 of 2 workers ready, generation 1" {
		t.Errorf("%q", text)
	}
	reload := func() {
		t.Helper()
		before := monotonic()
		p.Signal(syscall.SIGHUP)
		text := r.expect(pid, "RELOADING=1\nMONOTONIC_USEC=")
		usec, rest, _ := strings.Cut(strings.TrimPrefix(text, "RELOADING=1\nMONOTONIC_USEC="), "\n")
		n, err := strconv.ParseInt(usec, 10, 64)
		if err != nil || n < before || n > monotonic() || rest != "STATUS=reloading" {
			t.Errorf("%q, at %d", text, before)
		}
	}
	reload()
	if text := r.expect(pid, "READY=1"); text != "READY=1\nSTATUS=2 of 2 workers ready, generation 2" {
		t.Errorf("%q", text)
	}
	r.touch("bad")
	reload()
	if text := r.expect(pid, "READY=1"); text != "READY=1\nSTATUS=reload failed: the configuration is bad" {
		t.Errorf("%q", text)
	}
	os.Remove(r.file("bad"))
	r.touch("crash")
	reload()
	text := r.expect(pid, "READY=1")
	os.Remove(r.file("crash"))
	if !strings.HasPrefix(text, "READY=1\nSTATUS=generation 3 failed, keeping generation 2: worker ") || strings.Count(text, "\n") != 1 {
		t.Errorf("%q", text)
	}
	if text := r.expect(pid, "STATUS="); !strings.Contains(text, "generation 2, generation 3 failed, keeping generation 2: worker ") {
		t.Errorf("afterwards %q", text)
	}
	reload()
	r.expect(pid, "READY=1\nSTATUS=2 of 2 workers ready, generation ")
	p.Signal(syscall.SIGTERM)
	if text := r.expect(pid, "STOPPING=1"); !strings.HasPrefix(text, "STOPPING=1\nSTATUS=stopping, ") || !strings.HasSuffix(text, " workers left") {
		t.Errorf("%q", text)
	}
	testprog.ExpectSuccess(t, p)
	for {
		m, err := r.nextWithin(time.Millisecond)
		if err != nil {
			break
		}
		if !strings.HasPrefix(m.text, "STATUS=stopping, ") {
			t.Errorf("after STOPPING: %q", m.text)
		}
	}
}

// The successor is silent until the old manager has reported it, and the old one is
// silent from then on.
func TestUpgrades(t *testing.T) {
	r := newReceiver(t)
	p := r.start()
	pid, previous := p.PID(), 0
	r.expect(pid, "READY=1")
	upgrades := 3
	if testprog.Long() {
		upgrades = 100
	}
	for range upgrades {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		text := r.expect(pid, "MAINPID=")
		successor, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(text, "MAINPID=")))
		if err != nil || successor == pid {
			t.Fatalf("%q", text)
		}
		if text := r.expect(successor, "READY=1"); text != "READY=1\nSTATUS=2 of 2 workers ready, generation 1" {
			t.Errorf("%q", text)
		}
		pid, previous = successor, pid
	}
	syscall.Kill(pid, syscall.SIGTERM)
	r.expect(pid, "STOPPING=1")
	p.Wait()
	for _, other := range []int{pid, previous} { // not children of the test
		for syscall.Kill(other, 0) == nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// A program with two pools is ready when both are, its watchdog needs both loops,
// and it is stopping when the last one is.
func TestTwoPools(t *testing.T) {
	r := newReceiver(t)
	r.touch("hold")
	p := r.startProgram("pools", "WATCHDOG_USEC=150000")
	pid := p.PID()
	p.Expect("worker ready") // of web
	os.Remove(r.file("hold"))
	if text := r.expect(pid, "READY=1"); text != "READY=1\nSTATUS=web: 1 of 1 workers ready, generation 1; queue: 1 of 1 workers ready, generation 1" {
		t.Errorf("%q", text)
	}
	r.touch("hook")
	p.Signal(syscall.SIGHUP)
	for r.fed(300 * time.Millisecond) {
	}
	os.Remove(r.file("hook"))
	r.touch("end")
	p.Expect("^queue has ended$")
	for range 5 { // more than a message that was on the way
		if !r.fed(10 * time.Second) {
			t.Fatal("not fed after the end of one pool")
		}
	}
	p.Signal(syscall.SIGTERM)
	if text := r.expect(pid, "STOPPING=1"); !strings.HasPrefix(text, "STOPPING=1\nSTATUS=stopping, ") {
		t.Errorf("%q", text)
	}
	testprog.ExpectSuccess(t, p)
	os.Remove(r.file("end"))
}

// A systemd that takes no messages holds up neither what sends nor the end, and the
// last messages are kept.
func TestDeafReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// sent stays open, as when sendAll never gets rid of its message.
		n := &notifier{sender: &sender{queue: make(chan string, queueSize), sent: make(chan struct{})}, closing: make(chan struct{})}
		for i := range 3 * queueSize {
			n.send(strconv.Itoa(i))
		}
		began := time.Now()
		n.close()
		if took := time.Since(began); took != closeGrace {
			t.Errorf("close took %v", took)
		}
		for i := 2 * queueSize; i < 3*queueSize; i++ {
			if got := <-n.queue; got != strconv.Itoa(i) {
				t.Fatalf("message %s, want %d", got, i)
			}
		}
	})
}

// Without systemd, and in a worker, Attach does nothing.
func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	detach, err := Attach(Config{}, new(prefork.Manager))
	if err != nil || detach() != nil {
		t.Errorf("%v", err)
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{"a\nREADY=1\t\x00b": "a READY=1  b", strings.Repeat("é", maxText): strings.Repeat("é", maxText/2) + " …"} {
		if got := oneLine(text); got != want {
			t.Errorf("%.20q: %.20q", text, got)
		}
	}
}

// A pool counts as started from its first ready worker on, also if that one has
// ended when another pool gets ready. READY=1 and STOPPING=1 need all pools.
func TestEachPoolCounts(t *testing.T) {
	n := &notifier{pools: []*pool{{name: "web", shutdownSignal: syscall.SIGTERM}, {name: "queue", shutdownSignal: syscall.SIGTERM}}}
	web, queue := n.pools[0], n.pools[1]
	ready := prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateReady}}
	stop := prefork.SignalEvent{Received: syscall.SIGTERM}
	check := func(what string, wantReady, wantStopping bool) {
		t.Helper()
		became := n.becomesReady()
		if became != wantReady || n.stopping != wantStopping {
			t.Errorf("%s: becomes ready %t, stopping %t", what, became, n.stopping)
		}
	}
	n.note(web, ready)
	n.note(web, prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateStopping}, From: prefork.StateReady})
	check("one of two ready", false, false)
	n.note(queue, prefork.SettledEvent{}) // without a worker, as with MaxWorkers 0
	check("both", true, false)
	check("both, again", false, false)
	n.note(queue, prefork.ReloadEvent{Received: syscall.SIGHUP})
	n.note(queue, stop) // its reload never settles
	if len(n.pending) != 2 || n.pending[1] != needsStatus {
		t.Errorf("a reload that is stopped: %q", n.pending)
	}
	n.note(queue, prefork.EndedEvent{})
	check("one stops", false, false)
	n.note(queue, prefork.StartedEvent{})
	n.note(web, stop)
	check("one stops after the other has started again", false, false)
	n.note(queue, prefork.EndedEvent{})
	check("both stop", false, true)
	n.note(queue, prefork.StartedEvent{})
	check("systemd cannot take STOPPING=1 back", false, true)
	if got := strings.Count(strings.Join(n.pending, " "), "STOPPING=1"); got != 1 {
		t.Errorf("%q", n.pending)
	}
}

// With the option All a pool counts when it has settled.
func TestReadyWhenSettled(t *testing.T) {
	n := &notifier{cfg: Config{Ready: All}, pools: []*pool{{}}}
	n.note(n.pools[0], prefork.StateEvent{Worker: prefork.WorkerInfo{State: prefork.StateReady}})
	if n.becomesReady() {
		t.Error("one worker suffices")
	}
	n.note(n.pools[0], prefork.SettledEvent{})
	if !n.becomesReady() {
		t.Error("not ready")
	}
}

// The queue of messages for systemd is bounded, and keeps the last ones.
func TestPendingIsBounded(t *testing.T) {
	n := new(notifier)
	for i := range 3 * queueSize {
		n.put(strconv.Itoa(i))
	}
	if len(n.pending) != queueSize || !slices.Contains(n.pending, strconv.Itoa(3*queueSize-1)) {
		t.Errorf("%d messages, the last is %s", len(n.pending), n.pending[len(n.pending)-1])
	}
}
