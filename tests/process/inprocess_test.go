//go:build unix

package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("site", site)
	preforktest.Register("ways", ways)
}

// site is an HTTP server on a TCP and a unix socket, as programs are written. Its
// first argument is the path of the unix socket.
func site() {
	reloads := 0
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 3,
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term}, syscall.SIGUSR2: {Signal: syscall.SIGWINCH}, syscall.SIGALRM: {Upgrade: true},
		},
		Reload: func() ([]byte, error) {
			if reloads++; reloads == 3 {
				return nil, errors.New("it is broken")
			}
			return strconv.AppendInt(nil, int64(reloads), 10), nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	tcp, err := pm.ListenPerWorker("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	unix, err := pm.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	udp, err := pm.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	testprog.Print("serving on %v %v", tcp.Addr(), udp.LocalAddr())
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.SetStatus(prefork.StatusIdle)
		w.Ready()
		<-w.TookOver()
		var users sync.WaitGroup // of udp, which the next worker gets
		defer users.Wait()
		users.Go(func() {
			<-w.Context().Done()
			udp.SetReadDeadline(time.Now())
		})
		users.Go(func() {
			defer udp.Close()
			buf := make([]byte, 100)
			for {
				n, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				udp.WriteTo(fmt.Appendf(nil, "%s %d", buf[:n], w.Generation()), from)
			}
		})
		go func() {
			select {
			case <-resized:
				testprog.Print("resized")
			case <-w.Context().Done():
			}
		}()
		handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			w.Served(1)
			s := pm.Snapshot()
			fmt.Fprintf(rw, "pid %d slot %d generation %d ordinal %d passed %s workers %d status %c worker %v", os.Getpid(), w.Slot(), w.Generation(),
				w.Ordinal(), w.Passed(), len(s.Workers), s.Workers[0].Status, prefork.IsWorker())
		})
		both := make(chan error)
		go func() { both <- preforkhttp.Serve(w, tcp, &http.Server{Handler: handler}) }()
		err := preforkhttp.Serve(w, unix, &http.Server{Handler: handler})
		return errors.Join(err, <-both)
	})
	testprog.Print("ended: %v, signal %v", err, pm.SignalReceived())
}

// TestInProcess checks that a server runs in the process of its manager, through
// reloads, with all its sockets.
func TestInProcess(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "sock")
	p := preforktest.New(t, "site", path)
	p.Cmd.Env = append(os.Environ(), "PREFORK_IN_PROCESS=1")
	p.Start()
	p.Expect(`in-process mode`)
	line := p.Expect(`^serving on (\S+) (\S+)$`)
	get := func(network, address string, generation, passed int) {
		t.Helper()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		want := fmt.Sprintf("pid %d slot 0 generation %d ordinal %d passed %d workers 1 status _ worker false", p.PID(), generation, generation, passed)
		if string(body) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", network, body, err, want)
		}
	}
	all := func(generation, passed int) {
		t.Helper()
		get("tcp", line[1], generation, passed)
		get("unix", path, generation, passed)
		conn, err := net.Dial("udp", line[2])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conn.Write([]byte("hello"))
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if want := fmt.Sprintf("hello %d", generation); string(buf[:n]) != want || err != nil {
			t.Errorf("udp: %q, %v; want %q", buf[:n], err, want)
		}
	}
	p.Expect(`worker starting`)
	all(1, 1)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^resized$`)
	p.Signal(hup)
	p.Expect(`worker gone`)
	p.Expect(`worker starting`)
	all(2, 2)
	p.Signal(usr1)
	p.Expect(`reload failed, keeping workers.*it is broken`)
	all(2, 2)
	p.Signal(syscall.SIGALRM)
	p.Expect(`upgrade failed, keeping this manager.*in-process`)
	p.Signal(usr1)
	p.Expect(`worker starting`)
	all(3, 4)
	if children, err := preforktest.Children(p.PID()); err == nil && len(children) > 0 {
		t.Errorf("children: %v", children)
	}
	p.Signal(term)
	p.Expect(`^ended: <nil>, signal terminated$`)
	if state := p.Wait(); !state.Success() {
		t.Error(state)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file of the unix socket is left")
	}
}

// ways runs the main loop of its first argument.
func ways() {
	pm, err := prefork.New(prefork.Config{InProcess: true, WorkerShutdown: true, ErrRespawnInterval: 50 * time.Millisecond, TrapSignals: prefork.Signals{
		term: {Signal: term}, hup: {Signal: term}, usr1: {},
	}})
	if err != nil {
		log.Fatal(err)
	}
	wait := func(w *prefork.Worker) error {
		testprog.Print("working %d %d %s", w.Generation(), w.Ordinal(), w.Passed())
		<-w.Context().Done()
		testprog.Print("cause: %v", context.Cause(w.Context()))
		return nil
	}
	switch os.Args[1] {
	case "StartFunc":
		for pm.SignalReceived() != term {
			pm.Pass(strconv.AppendInt(nil, int64(pm.Generation()), 10))
			pm.StartFunc(wait)
			testprog.Print("received %v", pm.SignalReceived())
		}
		left, err := pm.WaitAllChildren(context.Background())
		testprog.Print("left %d %v", left, err)
	case "Start":
		for pm.SignalReceived() != term {
			pm.Pass([]byte("bytes"))
			if pm.Start() {
				continue
			}
			wait(pm.Worker())
			pm.Finish(7)
		}
	case "fails":
		n := 0
		pm.Run(context.Background(), func(w *prefork.Worker) error {
			if n++; n <= 3 {
				return errors.New("no " + strconv.Itoa(n))
			}
			return wait(w)
		})
	case "stuck":
		pm.Run(context.Background(), func(w *prefork.Worker) error {
			testprog.Print("stuck")
			select {}
		})
	case "panics":
		pm.Run(context.Background(), func(w *prefork.Worker) error { panic("as it does") })
	case "pauses":
		pm.Pause()
		pm.Run(context.Background(), func(w *prefork.Worker) error {
			go func() {
				for !pm.Snapshot().AllPaused() {
					time.Sleep(time.Millisecond)
				}
				testprog.Print("paused")
				pm.Resume()
			}()
			testprog.Print("more: %v", w.Checkpoint())
			pm.Shutdown()
			return nil
		})
	case "asks":
		err := pm.Run(context.Background(), func(w *prefork.Worker) error {
			w.ShutdownPool(3, "no model")
			w.ShutdownPool(4, "again")
			return wait(w)
		})
		testprog.Print("%v %v", errors.As(err, new(*prefork.WorkerError)), err)
	case "asks, then Ctrl-C":
		err := pm.Run(context.Background(), func(w *prefork.Worker) error {
			w.ShutdownPool(3, "no model")
			<-w.Context().Done()
			testprog.Print("stopping")
			<-w.Interrupted()
			return nil
		})
		testprog.Print("%v", err)
	case "Ctrl-C in two Starts": // of which the second still has the worker of the first
		var w atomic.Pointer[prefork.Worker]
		for range 2 {
			pm.StartFunc(func(now *prefork.Worker) error {
				w.Store(now)
				testprog.Print("working")
				select {}
			})
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-w.Load().Interrupted()
				cancel()
			}()
			left, err := pm.WaitAllChildren(ctx)
			testprog.Print("left %d %v", left, err)
		}
	case "asks late": // and returns at once, which must not hide it
		pm.StartFunc(func(w *prefork.Worker) error {
			pm.Shutdown()
			<-w.Context().Done()
			w.ShutdownPool(5, "cannot write the rest")
			return nil
		})
		_, err := pm.WaitAllChildren(context.Background())
		testprog.Print("%v", err)
	case "fails with":
		why := errors.New("why")
		err := pm.Run(context.Background(), func(w *prefork.Worker) error {
			pm.ShutdownWith(why)
			return wait(w)
		})
		testprog.Print("%v", err == why)
		pm.Shutdown()
		testprog.Print("then %v", pm.Run(context.Background(), wait))
	}
	testprog.Print("end")
}

// TestInProcessWays checks all ways to write the main loop.
func TestInProcessWays(t *testing.T) {
	run := func(way string, act func(p *preforktest.Program), code int) {
		t.Run(way, func(t *testing.T) {
			p := preforktest.Start(t, "ways", way)
			act(p)
			if state := p.Wait(); state.ExitCode() != code {
				t.Errorf("%v, want %d", state, code)
			}
		})
	}
	run("StartFunc", func(p *preforktest.Program) {
		p.Expect("working 1 1 0")
		p.Signal(usr1)
		p.Expect("received user defined signal 1")
		p.Signal(hup)
		p.Expect("cause: prefork: stopped by SIGTERM")
		p.Expect("working 3 2 2")
		p.Signal(term)
		p.Expect("left 0 <nil>")
		p.Expect("^end$")
	}, 0)
	run("Start", func(p *preforktest.Program) {
		p.Expect("working 1 1 bytes")
		p.Signal(hup)
		p.Expect("cause: prefork: stopped by SIGTERM")
	}, 7)
	run("fails", func(p *preforktest.Program) {
		for _, line := range []string{"no 1", "no 2", "no 3", "working 1 4"} {
			p.Expect(line)
		}
		p.Signal(os.Interrupt)
		p.Expect("^end$")
	}, 0)
	run("stuck", func(p *preforktest.Program) {
		p.Expect("^stuck$")
		p.Signal(os.Interrupt)
		time.Sleep(20 * time.Millisecond)
		p.Signal(os.Interrupt)
		p.Expect("second interrupt")
	}, 1)
	run("panics", func(p *preforktest.Program) { p.Expect("^panic: as it does") }, 2)
	run("pauses", func(p *preforktest.Program) {
		p.Expect("^paused$")
		p.Expect("^more: true$")
		p.Expect("^end$")
	}, 0)
	run("asks", func(p *preforktest.Program) {
		p.Expect("shutdown requested by worker.* slot=0 gen=1 pid=\\d+ code=3 message=\"no model\"")
		p.Expect("^true prefork: worker \\d+ \\(slot 0, generation 1\\) requested a shutdown with code 3: no model$")
		if log := strings.Join(p.Lines(), "\n"); strings.Contains(log, "again") {
			t.Errorf("the second request counts:\n%s", log)
		}
	}, 0)
	run("asks, then Ctrl-C", func(p *preforktest.Program) {
		p.Expect("^stopping$")
		p.Signal(os.Interrupt)
		p.Expect("requested a shutdown with code 3: no model$")
	}, 0)
	run("Ctrl-C in two Starts", func(p *preforktest.Program) {
		p.Expect("^working$")
		p.Signal(os.Interrupt)
		p.Expect("^left 1 context canceled$")
		p.Signal(os.Interrupt)
		p.Expect("^left 1 context canceled$")
	}, 0)
	run("asks late", func(p *preforktest.Program) { p.Expect("requested a shutdown with code 5: cannot write the rest$") }, 0)
	run("fails with", func(p *preforktest.Program) {
		p.Expect("^true$")
		p.Expect("^then <nil>$")
	}, 0)
}

func TestInProcessRefused(t *testing.T) {
	var bad *prefork.ConfigError
	if _, err := prefork.New(prefork.Config{Name: t.Name(), InProcess: true, Command: []string{"true"}}); !errors.As(err, &bad) || bad.Field != "InProcess" {
		t.Error(err)
	}
}

// In in-process mode the events reach those who follow, and the loop answers.
func TestFollowInProcess(t *testing.T) {
	p := preforktest.New(t, "operated")
	p.Cmd.Env = append(os.Environ(), "PREFORK_IN_PROCESS=1")
	stdin, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Expect(`^follows from 0, 0 workers, reaper 0$`)
	p.Expect(`^event 1 StartedEvent: `)
	p.Expect(`^event 2 GenerationEvent: generation 1 of 1 workers begins$`)
	p.Expect(`^event 3 StateEvent: worker \d+ .* starting$`)
	p.Expect(`^event 4 StateEvent: worker \d+ .* ready$`)
	p.Expect(`^event 5 SettledEvent: generation 1 has settled$`)
	io.WriteString(stdin, "ping\nnote remark\n")
	p.Expect(`^ping: <nil>$`)
	p.Expect(`^event 6 NoteEvent: remark, asked for by the test$`)
	p.Signal(hup)
	p.Expect(`^event 7 ReloadEvent: `)
	p.Expect(`^event 8 SignalEvent: `)
	p.Expect(`^event 9 StateEvent: worker \d+ .* stopping$`)
	p.Expect(`^event 10 GenerationEvent: generation 2 `)
	p.Expect(`^event 11 ExitEvent: `)
	p.Expect(`^event 13 StateEvent: worker \d+ .* ready$`)
	// A worker that serves has counted its requests.
	p.ExpectAll(`^event 14 SettledEvent: generation 2 has settled$`, `^worker 2 serves$`)
	io.WriteString(stdin, "state\n")
	p.Expect(`^state: settled true on 2 of 2, 1 workers, 10 requests, cpu true, in Run, last exits $`)
	io.WriteString(stdin, "reload\n")
	p.Expect(`^reload: 3, <nil>$`)
	io.WriteString(stdin, "replace 3\n")
	p.Expect(`^replace: <nil>$`)
	io.WriteString(stdin, "next typo\nreload\n")
	p.Expect(`^reload: 4, prefork: Reload: reload failed, keeping workers: a typo$`)
	io.WriteString(stdin, "replace 3\nkill 3\nupgrade\n")
	p.Expect(`^replace: .*no worker with ordinal 3`)
	p.Expect(`^kill: .*no worker with ordinal 3`)
	p.Expect(`^upgrade: 0, prefork: RequestUpgrade: there is no upgrade in in-process mode$`)
	p.Signal(term)
	p.Expect(`^event \d+ EndedEvent: manager ended$`)
	p.Expect(`^Run returned <nil>$`)
	testprog.ExpectSuccess(t, p)
}
