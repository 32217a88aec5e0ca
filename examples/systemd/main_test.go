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

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"systemd": main}) }

// find returns the path of a program of systemd. Without it the test is skipped, but not in CI.
func find(t *testing.T, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		const missing = "needs a program of systemd (Debian: apt-get install systemd): %v"
		if os.Getenv("CI") == "true" {
			t.Fatalf(missing, err)
		}
		preforktest.Skipf(t, missing, err)
	}
	return path
}

// On a socket that systemd-socket-activate has bound, and from the first connection on, it serves through reloads.
func TestSocketActivation(t *testing.T) {
	p := preforktest.New(t, "systemd", "-listen", ":0")
	activate := find(t, "systemd-socket-activate")
	// It takes no port 0. All of 127.0.0.0/8 is loopback, and nobody else has a port at an address of one's own.
	address := fmt.Sprintf("127.%d.%d.%d:8080", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	args := []string{activate, "--listen", address}
	for _, name := range []string{"PREFORKTEST_PROGRAM", "PREFORKTEST_ID", "GORACE"} {
		args = append(args, "--setenv", name) // it hands on no more of the environment than it is told to
	}
	p.Cmd.Args = append(append(args, "--"), p.Cmd.Args...)
	p.Cmd.Path = activate
	p.Start()
	p.Expect(`^Listening on `)

	var latest atomic.Int64 // the generation that answered last
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 4, Fresh: 2, MaxTime: 2 * time.Minute,
		Check: func(status int, body []byte) error {
			var slot int
			var generation int64
			if _, err := fmt.Sscanf(string(body), "worker %d of generation %d\n", &slot, &generation); err != nil || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			latest.Store(generation)
			return nil
		},
	})
	defer clients.Stop()
	p.Expect(fmt.Sprintf(`^serving on %s; the manager's pid is %d$`, address, p.PID())) // it has become the program
	for generation := int64(1); generation <= 4; generation++ {
		p.ExpectN(2, fmt.Sprintf(`worker ready.* gen=%d `, generation))
		served := clients.Result().OK
		preforktest.WaitFor(t, fmt.Sprintf("500 requests more, served by generation %d", generation), func() bool {
			return clients.Result().OK >= served+500 && latest.Load() == generation
		})
		if generation < 4 {
			p.Signal(syscall.SIGHUP)
		}
	}
	result := clients.Stop()
	t.Logf("through 3 reloads: %v", result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}

// systemd-analyze finds nothing wrong with the units.
func TestUnits(t *testing.T) {
	analyze := find(t, "systemd-analyze")
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
		const installed = "ExecStart=/usr/local/bin/prefork-example\n" // systemd-analyze looks for the program
		if n := strings.Count(string(unit), installed); name == "prefork.service" && n != 1 {
			t.Errorf("%s has %d lines %q", name, n, installed)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Replace(string(unit), installed, "ExecStart="+self+"\n", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
