//go:build unix

package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("rolling", main) }

var long = flag.Bool("long", false, "run the tests that take minutes")

func get(t *testing.T, address string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(body)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitReplaced waits until two workers of a generation have been replaced and
// have exited. It checks that each was stopped only when its replacement was
// ready.
func awaitReplaced(t *testing.T, p *preforktest.Program, from, to int) {
	t.Helper()
	ready := make(map[string]bool) // slots
	for _, got := range p.ExpectN(7, `worker (ready|stopping|gone) slot=(\d) gen=(\d)|workers replaced gen=\d`) {
		switch change, slot := got[1], got[2]; change {
		case "ready":
			ready[slot] = true
		case "stopping":
			if !ready[slot] || got[3] != strconv.Itoa(from) {
				t.Errorf("%s, without a replacement", got[0])
			}
		case "":
			if want := fmt.Sprintf("workers replaced gen=%d", to); got[0] != want {
				t.Errorf("%s, want %s", got[0], want)
			}
		}
	}
}

// HUP replaces the workers one after another. A broken page makes the new
// generation fail, and a missing page makes the reload fail.
func TestReload(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.txt")
	write(t, page, "good morning, generation {{.Generation}}")
	p := preforktest.Start(t, "rolling", "-listen", "127.0.0.1:0", "-workers", "2", "-page", page)
	address := p.Expect(`^serving on http://(\S+) with 2 workers`)[1]
	p.ExpectN(2, `worker ready`)

	write(t, page, "good night, generation {{.Generation}}")
	p.Signal(syscall.SIGHUP)
	awaitReplaced(t, p, 1, 2)
	if got := get(t, address); got != "good night, generation 2" {
		t.Errorf("response after HUP: %q", got)
	}

	for text, reason := range map[string]string{
		"{{":           "template: page:1: ",
		"{{.Nothing}}": "can't evaluate field Nothing",
	} {
		write(t, page, text)
		p.Signal(syscall.SIGHUP)
		p.Expect(`worker failed .*` + reason)
		p.Expect(`new generation failed.* kept=2`)
		if got := get(t, address); got != "good night, generation 2" {
			t.Errorf("response after a broken page: %q", got)
		}
	}
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.Expect(`reload failed, keeping workers`)

	write(t, page, "good morning, generation {{.Generation}}")
	p.Signal(syscall.SIGHUP)
	awaitReplaced(t, p, 2, 5)
	if got := get(t, address); got != "good morning, generation 5" {
		t.Errorf("response after the page was repaired: %q", got)
	}
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}
