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

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"service": main}) }

// command runs a command of the example to its end, and returns its exit status.
func command(t *testing.T, dir string, want []string, args ...string) (code int) {
	t.Helper()
	p := preforktest.Start(t, "service", append([]string{"--dir", dir}, args...)...)
	for _, w := range want {
		p.Expect(w)
	}
	code = p.Wait().ExitCode()
	p.WaitGone()
	if len(want) == 0 && len(p.Lines()) > 0 {
		t.Errorf("%v said %q", args, p.Lines())
	}
	return code
}

func ask(address string, timeout time.Duration) (string, error) {
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

// The synopsis of Proc::tored, from run to zap and start.
func TestService(t *testing.T) {
	dir := t.TempDir()
	if code := command(t, dir, []string{`^web does not run$`}, "status"); code != 3 {
		t.Errorf("status: exit code %d", code)
	}
	p := preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0", "--workers", "2")
	address := p.Expect(`^web serves on http://(\S+) with 2 workers as process \d+; before it: no manager has started$`)[1]
	p.ExpectN(2, `^\S+ \S+ worker \d+ \(slot \d, generation 1\) ready$`)
	if body, err := ask(address, time.Minute); err != nil || body == "" {
		t.Errorf("%q, %v", body, err)
	}
	if code := command(t, dir, []string{fmt.Sprintf(`^web runs as process %d$`, p.PID()), `^manager \d+ started \S+, and has 2 workers$`}, "status"); code != 0 {
		t.Errorf("status: exit code %d", code)
	}
	if code := command(t, dir, []string{fmt.Sprintf(`service web: already running as process %d$`, p.PID())}, "run"); code != 1 {
		t.Errorf("second run: exit code %d", code)
	}

	command(t, dir, nil, "pause")
	p.Expect(`pause requested$`)
	p.ExpectN(2, `ready, paused$`)
	if body, err := ask(address, 50*time.Millisecond); err == nil {
		t.Errorf("an answer during the pause: %q", body)
	}
	command(t, dir, []string{`^web runs`, `^its paused flag is set$`}, "status")
	answer := make(chan error)
	go func() {
		_, err := ask(address, time.Minute)
		answer <- err
	}()
	command(t, dir, nil, "resume")
	p.Expect(`resume requested$`)
	if err := <-answer; err != nil {
		t.Errorf("the request that waited: %v", err)
	}
	command(t, dir, []string{`^it was not set$`}, "resume")

	// An upgrade by the same file: another process has the name.
	p.Signal(syscall.SIGUSR2)
	successor := p.ExpectAll(`^web serves on .* as process (\d+);`, `successor \d+ has taken over$`)[0][1]
	p.Wait()
	command(t, dir, []string{`^web runs as process ` + successor + `$`}, "status")

	if code := command(t, dir, []string{`^web exited$`}, "zap", "--timeout", "1m"); code != 0 {
		t.Errorf("zap: exit code %d", code)
	}
	p.WaitGone()
	command(t, dir, []string{`^web not running$`}, "zap")
	command(t, dir, []string{`stopped flag is set: remove \S+$`}, "run")
	command(t, dir, nil, "start")
	command(t, dir, []string{`^web does not run$`, `^manager ` + successor + ` started .* and ended`}, "status")

	// A script that touches the file.
	p = preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0")
	p.Expect(`before it: manager ` + successor + ` started`)
	if err := os.WriteFile(filepath.Join(dir, "web.stopped"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	p.WaitGone()
	command(t, dir, nil, "start")

	// kill -9: the next one starts, and learns what was left.
	p = preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0", "--workers", "3")
	p.ExpectN(3, `ready$`)
	p.Kill()
	p.Wait()
	again := preforktest.Start(t, "service", "--dir", dir, "run", "--listen", "127.0.0.1:0")
	again.Expect(`before it: manager ` + strconv.Itoa(p.PID()) + ` started \S+, and has 3 workers$`)
	again.Signal(syscall.SIGTERM)
	again.Wait()
}
