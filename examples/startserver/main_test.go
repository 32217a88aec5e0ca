//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("startserver", main) }

// newUnderStartServer returns the example under start_server, not yet started.
// It skips the test if start_server is not installed.
func newUnderStartServer(t *testing.T, options ...string) *preforktest.Program {
	path := preforktest.NeedCommand(t, "start_server", "Debian: apt-get install libserver-starter-perl")
	p := preforktest.New(t, "startserver", "-listen", ":0")
	// For port 0 of start_server, the kernel chooses a free port.
	options = slices.Concat([]string{path, "--port", "127.0.0.1:0"}, options, []string{"--"})
	p.Cmd.Args = append(options, p.Cmd.Args...)
	p.Cmd.Path = path
	return p
}

// newAlone returns the example alone, not yet started.
func newAlone(t *testing.T, _ ...string) *preforktest.Program {
	return preforktest.New(t, "startserver", "-listen", "127.0.0.1:0")
}

// awaitManager waits for the first line of a manager and returns its address
// and pid.
func awaitManager(p *preforktest.Program, number int) (address, pid string) {
	got := p.Expect(fmt.Sprintf(`^serving on (\S+); the manager's pid is (\d+), its number %d$`, number))
	return got[1], got[2]
}

var response = regexp.MustCompile(`^worker \d of generation (\d) of manager (\d+)\n$`)

// HUP replaces the manager twice under load without losing a request. TERM
// stops everything.
func TestNewManagersUnderLoad(t *testing.T) {
	p := newUnderStartServer(t, "--signal-on-hup=TERM").Start()
	var responding atomic.Value // the pid of the manager whose worker responded last
	var clients *loadgen.Load
	old := ""
	for number := 1; number <= 3; number++ {
		if number > 1 {
			p.Signal(syscall.SIGHUP)
		}
		address, pid := awaitManager(p, number)
		if number == 1 {
			clients = startLoad(address, &responding)
			defer clients.Stop()
		} else {
			// start_server calls the manager a worker.
			exited := "old worker " + old + " died, status:0"
			preforktest.WaitFor(t, exited, func() bool { return slices.Contains(p.Lines(), exited) })
		}
		served := clients.Result().OK
		preforktest.WaitFor(t, fmt.Sprintf("1000 more requests, served by manager %d", number), func() bool {
			return clients.Result().OK >= served+1000 && responding.Load() == pid
		})
		old = pid
	}
	result := clients.Stop()
	t.Logf("2 replaced managers: %v", result)
	if result.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
	p.Signal(syscall.SIGTERM)
	p.Expect(`^worker ` + old + ` died, status:0$`)
	if state := p.Wait(); !state.Success() {
		t.Errorf("start_server: %v", state)
	}
}

func startLoad(address string, responding *atomic.Value) *loadgen.Load {
	return loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 4, Fresh: 2, MaxTime: 2 * time.Minute,
		Check: func(status int, body []byte) error {
			got := response.FindSubmatch(body)
			if got == nil || status != http.StatusOK {
				return fmt.Errorf("status %d, %q", status, body)
			}
			responding.Store(string(got[2]))
			return nil
		},
	})
}

// HUP to the manager replaces its workers, under start_server and alone.
func TestReload(t *testing.T) {
	for name, tt := range map[string]struct {
		newProgram func(t *testing.T, options ...string) *preforktest.Program
		number     int
	}{
		"under start_server": {newUnderStartServer, 1},
		"by itself":          {newAlone, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := tt.newProgram(t).Start()
			address, manager := awaitManager(p, tt.number)
			p.ExpectN(2, `worker ready`)
			var pid int
			fmt.Sscan(manager, &pid)
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			p.ExpectN(2, `worker ready.* gen=2 `)
			got := response.FindStringSubmatch(get(t, "http://"+address))
			if got == nil || got[1] != "2" || got[2] != manager {
				t.Errorf("response %q, want generation 2 of manager %s", got, manager)
			}
			p.Signal(syscall.SIGTERM)
			if state := p.Wait(); !state.Success() {
				t.Errorf("manager: %v", state)
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
