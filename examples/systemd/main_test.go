//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("systemd", main) }

const install = "Debian: apt-get install systemd"

// startLoad starts clients that store the generation of each response in
// latest.
func startLoad(address string, latest *atomic.Int64) *loadgen.Load {
	return loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 4, Fresh: 2, MaxTime: 2 * time.Minute,
		Check: func(status int, body []byte) error {
			var slot int
			var generation int64
			_, err := fmt.Sscanf(string(body), "worker %d of generation %d\n", &slot, &generation)
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			latest.Store(generation)
			return nil
		},
	})
}

// The example serves on a socket of systemd-socket-activate from the first
// connection on, and reloads without losing a request.
func TestSocketActivation(t *testing.T) {
	activate := preforktest.NeedCommand(t, "systemd-socket-activate", install)
	p := preforktest.New(t, "systemd", "-listen", ":0")
	// systemd-socket-activate does not accept port 0. All of 127.0.0.0/8 is
	// loopback, and at a random address of it the port is free.
	address := fmt.Sprintf("127.%d.%d.%d:8080", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	args := []string{activate, "--listen", address}
	for _, name := range []string{"PREFORKTEST_PROGRAM", "PREFORKTEST_ID", "GORACE"} {
		args = append(args, "--setenv", name) // it passes on only these variables
	}
	p.Cmd.Args = append(append(args, "--"), p.Cmd.Args...)
	p.Cmd.Path = activate
	p.Start()
	p.Expect(`^Listening on `)

	var latest atomic.Int64
	clients := startLoad(address, &latest)
	defer clients.Stop()
	// systemd-socket-activate executes the example in its own process.
	p.Expect(fmt.Sprintf(`^serving on %s; the manager's pid is %d$`, address, p.PID()))
	for generation := int64(1); generation <= 4; generation++ {
		p.ExpectN(2, fmt.Sprintf(`worker ready.* gen=%d `, generation))
		served := clients.Result().OK
		preforktest.WaitFor(t, fmt.Sprintf("500 more requests, served by generation %d", generation), func() bool {
			return clients.Result().OK >= served+500 && latest.Load() == generation
		})
		if generation < 4 {
			p.Signal(syscall.SIGHUP)
		}
	}
	result := clients.Stop()
	t.Logf("3 reloads: %v", result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}

// systemd-analyze reports no problem of the units.
func TestUnits(t *testing.T) {
	analyze := preforktest.NeedCommand(t, "systemd-analyze", install)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no", "--recursive-errors=no"}
	for _, name := range []string{"prefork.socket", "prefork.service"} {
		unit, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// systemd-analyze checks that the program exists.
		const installed = "ExecStart=/usr/local/bin/prefork-example\n"
		if n := strings.Count(string(unit), installed); name == "prefork.service" && n != 1 {
			t.Errorf("%s has %d lines %q", name, n, installed)
		}
		path := filepath.Join(dir, name)
		text := strings.Replace(string(unit), installed, "ExecStart="+self+"\n", 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
