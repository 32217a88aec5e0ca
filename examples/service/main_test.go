//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("service", main) }

// command runs a command of the example, expects the lines, and returns its
// exit status.
func command(t *testing.T, dir string, want []string, args ...string) (code int) {
	t.Helper()
	p := preforktest.Start(t, "service", append([]string{"--dir", dir}, args...)...)
	for _, w := range want {
		p.Expect(w)
	}
	code = p.Wait().ExitCode()
	p.WaitGone()
	if len(want) == 0 && len(p.Lines()) > 0 {
		t.Errorf("%v printed %q", args, p.Lines())
	}
	return code
}

func get(address string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// The example runs the synopsis of Proc::tored, from run to zap and start.
func TestService(t *testing.T) {
	dir := t.TempDir()
	if code := command(t, dir, []string{`^web is not running$`}, "status"); code != 3 {
		t.Errorf("status: exit code %d", code)
	}
	p := preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0", "--workers", "2")
	const serves = `^web serves on http://(\S+) with 2 workers as process \d+; previous: no manager has started$`
	address := p.Expect(serves)[1]
	p.ExpectN(2, `^\S+ \S+ worker \d+ \(slot \d, generation 1\) ready$`)
	if body, err := get(address, time.Minute); err != nil || body == "" {
		t.Errorf("%q, %v", body, err)
	}
	running := fmt.Sprintf(`^web is running as process %d$`, p.PID())
	last := `^manager \d+ started \S+, and has 2 workers$`
	if code := command(t, dir, []string{running, last}, "status"); code != 0 {
		t.Errorf("status: exit code %d", code)
	}
	running = fmt.Sprintf(`service web: already running as process %d$`, p.PID())
	if code := command(t, dir, []string{running}, "run"); code != 1 {
		t.Errorf("second run: exit code %d", code)
	}

	command(t, dir, nil, "pause")
	p.Expect(`pause requested$`)
	p.ExpectN(2, `ready, paused$`)
	if body, err := get(address, 50*time.Millisecond); err == nil {
		t.Errorf("response during the pause: %q", body)
	}
	command(t, dir, []string{`^web is running`, `^paused flag is set$`}, "status")
	response := make(chan error)
	go func() {
		_, err := get(address, time.Minute)
		response <- err
	}()
	command(t, dir, nil, "resume")
	p.Expect(`resume requested$`)
	if err := <-response; err != nil {
		t.Errorf("request during the pause: %v", err)
	}
	command(t, dir, []string{`^flag was not set$`}, "resume")

	// An upgrade to the same file: the name changes to another process.
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^web serves on .* as process (\d+);`, `successor \d+ has taken over$`)[0][1]
	p.Wait()
	command(t, dir, []string{`^web is running as process ` + successor + `$`}, "status")

	if code := command(t, dir, []string{`^web exited$`}, "zap", "--timeout", "1m"); code != 0 {
		t.Errorf("zap: exit code %d", code)
	}
	p.WaitGone()
	command(t, dir, []string{`^web not running$`}, "zap")
	command(t, dir, []string{`stopped flag is set: remove \S+$`}, "run")
	command(t, dir, nil, "start")
	last = `^manager ` + successor + ` started .* and ended`
	command(t, dir, []string{`^web is not running$`, last}, "status")

	// A script stops the service by creating the file.
	p = preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0")
	p.Expect(`previous: manager ` + successor + ` started`)
	if err := os.WriteFile(filepath.Join(dir, "web.stopped"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	p.WaitGone()
	command(t, dir, nil, "start")

	// After kill -9, the next manager starts and reports its predecessor.
	p = preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0", "--workers", "3")
	p.ExpectN(3, `ready$`)
	p.Kill()
	p.Wait()
	next := preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0")
	next.Expect(`previous: manager ` + strconv.Itoa(p.PID()) + ` started \S+, and has 3 workers$`)
	next.Signal(syscall.SIGTERM)
	next.Wait()
}
