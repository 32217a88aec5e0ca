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

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("limits", main) }

// start runs the example on a free port, and returns the limits that its two
// workers print.
func start(t *testing.T, args ...string) (p *preforktest.Program, url string, workers [][]string) {
	needNice(t)
	p = preforktest.Start(t, "limits", append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	url = p.Expect(`^serving on (http://\S+) with 2 workers$`)[1]
	p.Expect(fmt.Sprintf(`kill %d, or Ctrl-C$`, p.PID()))
	return p, url, p.ExpectN(2, workerLine)
}

const workerLine = `^worker (\d): pid (\d+), uid (\d+), nice (-?\d+), ` +
	`core files of 0 bytes, GOMAXPROCS 1(.*)$`

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
		t.Errorf("manager: %v", state)
	}
}

// needNice skips the test if the example cannot set the nice value of its
// workers.
func needNice(t *testing.T) {
	if nice := niceValue(); nice > workerNice && os.Geteuid() != 0 {
		preforktest.Skipf(t, "needs root or a nice value of at most %d: run the tests without nice (%d)",
			workerNice, nice)
	}
}

func linuxOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		preforktest.Skipf(t, "needs Linux")
	}
}

func TestResources(t *testing.T) {
	p, url, workers := start(t)
	for _, w := range workers {
		if w[4] != "5" {
			t.Errorf("nice %s, not 5", w[4])
		}
		// Each worker has one CPU. On a machine with one CPU, both have the
		// same.
		if runtime.GOOS == "linux" && (!strings.Contains(w[5], ", NoNewPrivs 1") ||
			strings.ContainsAny(w[5][strings.Index(w[5], "Cpus"):], "-,")) {
			t.Errorf("limits %q", w[5])
		}
	}
	const want = "nice 5, core files of 0 bytes, GOMAXPROCS 1"
	if got, err := get(url); err != nil || !strings.Contains(got, want) {
		t.Errorf("response %q, %v", got, err)
	}
	stop(t, p)
}

func TestUserAndChroot(t *testing.T) {
	linuxOnly(t)
	preforktest.NeedRoot(t)
	root := preforktest.TempDir(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	p, url, workers := start(t, "-user", "nobody", "-chroot", root)
	for _, w := range workers {
		if w[3] == "0" || w[5] != "" {
			t.Errorf("uid %s, limits read from /proc: %q", w[3], w[5])
		}
	}
	if got, err := get(url); err != nil || !strings.Contains(got, "uid "+workers[0][3]) {
		t.Errorf("response %q, %v", got, err)
	}
	stop(t, p)
}

func TestHang(t *testing.T) {
	p, url, _ := start(t)
	if got, err := get(url + "/hang"); err == nil {
		t.Errorf("response of a hanging worker: %q", got)
	}
	p.Expect(`^goroutine \d+ `) // its stacks
	p.Expect(`worker gone .*reason=stuck status="exit code 2"`)
	p.Expect(workerLine)
	stop(t, p)
}

func TestLeak(t *testing.T) {
	linuxOnly(t)
	p, url, _ := start(t)
	for range 7 { // so that one of two workers has at least 4 × 32 MiB
		if got, err := get(url + "/leak"); err != nil || !strings.HasSuffix(got, " MiB\n") {
			t.Fatalf("response %q, %v", got, err)
		}
	}
	p.Expect(`worker gone .*reason=recycled`) // after its replacement is ready
	stop(t, p)
}

func TestCrashLoop(t *testing.T) {
	needNice(t)
	p := preforktest.Start(t, "limits", "-listen", "127.0.0.1:0", "-broken")
	p.Expect(`crash loop, shutting down`)
	p.Expect(`prefork: crash loop: 4 failures in 30s, the last: worker \d+ \(slot \d, generation 1\) crashed: exit code \d+ after `)
	if state := p.Wait(); state.ExitCode() != 1 {
		t.Errorf("manager: %v", state)
	}
}
