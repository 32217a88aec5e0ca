//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"limits": main}) }

// start runs the example on a port that is free, and returns what its two workers say that they have.
func start(t *testing.T, args ...string) (p *preforktest.Program, url string, have [][]string) {
	p = preforktest.Start(t, "limits", append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	url = p.Expect(`^serving on (http://\S+) with 2 workers$`)[1]
	p.Expect(fmt.Sprintf(`kill %d, or Ctrl-C$`, p.PID()))
	return p, url, p.ExpectN(2, worker)
}

const worker = `^worker (\d): pid (\d+), uid (\d+), nice (-?\d+), core files of 0 bytes, GOMAXPROCS 1(.*)$`

func get(url string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func stop(t *testing.T, p *preforktest.Program) {
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}

func linuxOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		preforktest.Skipf(t, "only Linux can do this")
	}
}

func TestResources(t *testing.T) {
	p, url, have := start(t)
	for _, w := range have {
		if w[4] != "5" {
			t.Errorf("nice %s, not 5", w[4])
		}
		// On a machine of one CPU, both have that.
		if runtime.GOOS == "linux" && (!strings.Contains(w[5], ", NoNewPrivs 1") || strings.ContainsAny(w[5][strings.Index(w[5], "Cpus"):], "-,")) {
			t.Errorf("it has %q", w[5])
		}
	}
	if got, err := get(url); err != nil || !strings.Contains(got, "nice 5, core files of 0 bytes, GOMAXPROCS 1") {
		t.Errorf("it says %q, %v", got, err)
	}
	stop(t, p)
}

func TestUserAndChroot(t *testing.T) {
	linuxOnly(t)
	if os.Getuid() != 0 {
		preforktest.Skipf(t, "only root can have workers of another user, in a directory that is their root")
	}
	root := preforktest.TempDir(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	p, url, have := start(t, "-user", "nobody", "-chroot", root)
	for _, w := range have {
		if w[3] == "0" || w[5] != "" {
			t.Errorf("uid %s; of /proc it sees %q", w[3], w[5])
		}
	}
	if got, err := get(url); err != nil || !strings.Contains(got, "uid "+have[0][3]) {
		t.Errorf("it says %q, %v", got, err)
	}
	stop(t, p)
}

func TestHang(t *testing.T) {
	p, url, _ := start(t)
	if got, err := get(url + "/hang"); err == nil {
		t.Errorf("answered: %q", got)
	}
	p.Expect(`^goroutine \d+ `) // its stacks
	p.Expect(`worker gone .*reason=stuck status="exit code 2"`)
	p.Expect(worker)
	stop(t, p)
}

func TestLeak(t *testing.T) {
	linuxOnly(t)
	p, url, _ := start(t)
	for range 7 { // one of two workers has 4 × 32 MiB then
		if got, err := get(url + "/leak"); err != nil || !strings.HasSuffix(got, " MiB more\n") {
			t.Fatalf("it says %q, %v", got, err)
		}
	}
	p.Expect(`worker gone .*reason=recycled`) // its replacement is ready before that
	stop(t, p)
}

func TestCrashLoop(t *testing.T) {
	p := preforktest.Start(t, "limits", "-listen", "127.0.0.1:0", "-broken")
	p.Expect(`crash loop, shutting down`)
	p.Expect(`prefork: crash loop$`)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("it ended with %v", state)
	}
}
