//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"startserver": main}) }

// under returns the example under start_server, not yet started. Without start_server the test is skipped, but not in CI.
func under(t *testing.T, options ...string) *preforktest.Program {
	p := preforktest.New(t, "startserver", "-listen", ":0")
	path, err := exec.LookPath("start_server")
	if err != nil {
		const missing = "needs Perl's start_server (Debian: apt-get install libserver-starter-perl): %v"
		if os.Getenv("CI") == "true" {
			t.Fatalf(missing, err)
		}
		preforktest.Skipf(t, missing, err)
	}
	// start_server, too, leaves the choice of port 0 to the kernel.
	p.Cmd.Args = append(append([]string{path, "--port", "127.0.0.1:0"}, options...), append([]string{"--"}, p.Cmd.Args...)...)
	p.Cmd.Path = path
	return p
}

// expect waits for the line of a manager and returns its address and pid.
func expect(p *preforktest.Program, number int) (address, pid string) {
	got := p.Expect(fmt.Sprintf(`^serving on (\S+); the manager's pid is (\d+), its number %d$`, number))
	return got[1], got[2]
}

var answer = regexp.MustCompile(`^worker \d of generation (\d) of manager (\d+)\n$`)

// HUP replaces the whole manager under load, twice, and loses no request; TERM ends all there is.
func TestNewManagersUnderLoad(t *testing.T) {
	p := under(t, "--signal-on-hup=TERM").Start()
	var answering atomic.Value // the pid of the manager whose worker answered last
	var clients *loadgen.Load
	old := ""
	for number := 1; number <= 3; number++ {
		if number > 1 {
			p.Signal(syscall.SIGHUP)
		}
		address, pid := expect(p, number)
		if number == 1 {
			clients = startLoad(address, &answering)
			defer clients.Stop()
		} else {
			end := "old worker " + old + " died, status:0" // "worker" is what start_server calls the manager
			preforktest.WaitFor(t, end, func() bool { return slices.Contains(p.Lines(), end) })
		}
		served := clients.Result().OK
		preforktest.WaitFor(t, fmt.Sprintf("1000 requests more, served by manager number %d", number), func() bool {
			return clients.Result().OK >= served+1000 && answering.Load() == pid
		})
		old = pid
	}
	result := clients.Stop()
	t.Logf("through the ends of 2 managers: %v", result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	p.Signal(syscall.SIGTERM)
	p.Expect(`^worker ` + old + ` died, status:0$`)
	if state := p.Wait(); !state.Success() {
		t.Errorf("start_server ended with %v", state)
	}
}

func startLoad(address string, answering *atomic.Value) *loadgen.Load {
	return loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 4, Fresh: 2, MaxTime: 2 * time.Minute,
		Check: func(status int, body []byte) error {
			got := answer.FindSubmatch(body)
			if got == nil || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			answering.Store(string(got[2]))
			return nil
		},
	})
}

// HUP to the manager replaces its workers, under start_server as by itself.
func TestReload(t *testing.T) {
	for name, tt := range map[string]struct {
		program func(t *testing.T) *preforktest.Program
		number  int
	}{
		"under start_server": {func(t *testing.T) *preforktest.Program { return under(t) }, 1},
		"by itself": {func(t *testing.T) *preforktest.Program {
			return preforktest.New(t, "startserver", "-listen", "127.0.0.1:0")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := tt.program(t).Start()
			address, manager := expect(p, tt.number)
			p.ExpectN(2, `worker ready`)
			var pid int
			fmt.Sscan(manager, &pid)
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			p.ExpectN(2, `worker ready.* gen=2 `)
			if got := answer.FindStringSubmatch(get(t, "http://"+address)); got == nil || got[1] != "2" || got[2] != manager {
				t.Errorf("the manager is %s, and it answers %q", manager, got)
			}
			p.Signal(syscall.SIGTERM)
			if state := p.Wait(); !state.Success() {
				t.Errorf("it ended with %v", state)
			}
		})
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
