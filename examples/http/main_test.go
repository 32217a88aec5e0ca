//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("http", main) }

// start runs the example with its own configuration, on a free port.
func start(t *testing.T, workers int) (p *preforktest.Program, address, config string) {
	config = filepath.Join(t.TempDir(), "config.json")
	write(t, config, `{"Greeting": "good morning"}`)
	p = newProgram(t, workers, config).Start()
	got := p.Expect(`^serving on http://(\S+) with \d+ workers; the manager's pid is (\d+)$`)
	if got[2] != fmt.Sprint(p.PID()) {
		t.Errorf("printed pid %s, want %d", got[2], p.PID())
	}
	p.ExpectN(workers, `worker ready`)
	return p, got[1], config
}

// newProgram returns the example with a control socket in a directory of its own.
func newProgram(t *testing.T, workers int, config string) *preforktest.Program {
	p := preforktest.New(t, "http", "-listen", "127.0.0.1:0", "-workers", fmt.Sprint(workers), "-config", config)
	p.Cmd.Env = append(p.Cmd.Env, "PREFORK_CONTROL="+filepath.Join(testprog.SocketDir(t), "s"), "NOTIFY_SOCKET=")
	return p
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// The example serves, reloads its configuration, rejects a broken one, and
// finishes a request in flight when it stops.
func TestReloadAndStop(t *testing.T) {
	p, address, config := start(t, 2)
	if got := get(t, "http://"+address); !strings.HasPrefix(got, "good morning from worker ") ||
		!strings.Contains(got, " of generation 1,") {
		t.Errorf("response %q", got)
	}
	write(t, config, `{"Greeting": "good night"}`)
	p.Signal(syscall.SIGHUP)
	p.ExpectN(2, `worker ready.* gen=2`)
	if got := get(t, "http://"+address); !strings.HasPrefix(got, "good night ") {
		t.Errorf("response after HUP: %q", got)
	}
	write(t, config, `{"Greeting": oops`)
	p.Signal(syscall.SIGHUP)
	p.Expect(`reload failed, keeping workers.*invalid character 'o'`)
	if got := get(t, "http://"+address); !strings.HasPrefix(got, "good night ") {
		t.Errorf("response after a broken configuration: %q", got)
	}
	slow := make(chan string)
	go func() { slow <- get(t, "http://"+address+"/slow") }()
	waitForConnection(t, p)
	p.Signal(syscall.SIGTERM)
	if got := <-slow; got != "slow response, complete\n" {
		t.Errorf("response to the request in flight: %q", got)
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// As process 1 of a container, below its reaper, the example is shown, reloaded and
// stopped through its control socket.
func TestOperatedAsInit(t *testing.T) {
	p := newProgram(t, 2, "no such file")
	p.AsInit().Start()
	p.ExpectN(2, `worker ready`)
	var socket string
	for _, v := range p.Cmd.Env {
		if path, ok := strings.CutPrefix(v, client.EnvSocket+"="); ok {
			socket = path
		}
	}
	c, err := client.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if ok, err := c.Wait(ctx, "settled", "", time.Minute); err != nil || !ok {
		t.Fatalf("settled: %t, %v", ok, err)
	}
	st, err := c.Status(ctx, client.StatusOptions{Usage: true})
	if err != nil || st.PID == 1 || len(st.Pools[0].Workers) != 2 || st.Pools[0].Workers[0].Memory == nil {
		t.Errorf("%+v, %v", st, err)
	}
	for _, command := range []string{"reload", "stop"} {
		if a, err := c.Do(ctx, client.Command{Name: command}); err != nil || a.Outcome != client.Done {
			t.Errorf("%s: %+v, %v", command, a, err)
		}
	}
	testprog.ExpectSuccess(t, p)
}

// waitForConnection waits until a worker has accepted a connection.
func waitForConnection(t *testing.T, p *preforktest.Program) {
	preforktest.WaitFor(t, "a worker with a connection", func() bool {
		workers, err := preforktest.Children(p.PID())
		if err != nil {
			preforktest.Skipf(t, "cannot count connections: %v", err)
		}
		// A worker without connections has two sockets: one to the manager, and
		// the listening socket.
		return slices.ContainsFunc(workers, func(w preforktest.Proc) bool { return sockets(w.PID) > 2 })
	})
}

// sockets returns the number of sockets of a process.
func sockets(pid int) (n int) {
	fds, _ := preforktest.Descriptors(pid)
	for _, name := range fds {
		if strings.HasPrefix(name, "socket:") {
			n++
		}
	}
	return n
}

// Repeated reloads under load lose no request. The clients never retry, and use
// new and persistent connections.
func TestReloadsUnderLoad(t *testing.T) {
	reloads := testprog.Times(100)
	p, address, _ := start(t, 3)
	began := time.Now()
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 6, Fresh: 3, MaxTime: 5 * time.Minute,
	})
	for range reloads {
		p.Signal(syscall.SIGHUP)
		p.ExpectN(3, `worker ready`)
		served := clients.Result().OK
		preforktest.WaitFor(t, "100 requests served by the new workers", func() bool {
			return clients.Result().OK >= served+100
		})
	}
	result := clients.Stop()
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	t.Logf("%d reloads in %v: %v", reloads, time.Since(began).Round(time.Millisecond), result)
	if result.Failed > 0 || result.OK < 100*reloads {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
}
