//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// build builds a version of the example beside the running file and renames it,
// because a running file cannot be written.
func build(t *testing.T, binary, version string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", binary+".new", "-ldflags", "-X main.version="+version, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	replace(t, binary)
}

func replace(t *testing.T, binary string) {
	t.Helper()
	if err := os.Rename(binary+".new", binary); err != nil {
		t.Fatal(err)
	}
}

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

// program is the example as it runs.
type program struct {
	*preforktest.Program
	t       *testing.T
	address string
	manager int // pid
}

// awaitManager waits until a manager of the version has its workers ready, and
// until exited workers of the previous manager have exited. Two processes print
// these lines, in any order.
func (p *program) awaitManager(version string, exited int) {
	p.t.Helper()
	line := `^version ` + version + ` serves on http://(\S+) with 2 workers; the manager's pid is (\d+)$`
	got := p.Expect(line)
	pid, _ := strconv.Atoi(got[2])
	if p.manager != 0 && (got[1] != p.address || pid == p.manager) {
		p.t.Errorf("after the upgrade of manager %d at %s: %s", p.manager, p.address, got[0])
	}
	p.address, p.manager = got[1], pid
	p.ExpectN(2+exited, `worker ready|worker gone .*reason=stopped`)
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.manager, sig); err != nil {
		p.t.Fatal(err)
	}
}

// Under load, USR2 replaces the program with the file on disk. A file that
// cannot take over changes nothing.
func TestUpgrade(t *testing.T) {
	preforktest.NeedCommand(t, "go", "install Go and add it to PATH")
	binary := filepath.Join(t.TempDir(), "server")
	build(t, binary, "1")
	cmd := exec.Command(binary, "-listen", "127.0.0.1:0", "-workers", "2")
	p := &program{Program: preforktest.Command(t, cmd).Start(), t: t}
	p.awaitManager("1", 0)
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: p.address, KeepAlive: 4, Fresh: 2, MaxTime: 2 * time.Minute,
	})

	build(t, binary, "2")
	if got := get(t, p.address); !strings.HasPrefix(got, "version 1, ") {
		t.Errorf("response before the upgrade: %q", got)
	}
	p.signal(syscall.SIGUSR2)
	p.awaitManager("2", 2)
	got, suffix := get(t, p.address), fmt.Sprintf(" of manager %d\n", p.manager)
	if !strings.HasPrefix(got, "version 2, ") || !strings.HasSuffix(got, suffix) {
		t.Errorf("response after the upgrade: %q", got)
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("first manager: %v", state)
	}

	for name, text := range map[string]string{
		"that is no program": "version 3\n",
		"that exits at once": "#!/bin/sh\nexit 3\n",
	} {
		if err := os.WriteFile(binary+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		replace(t, binary)
		p.signal(syscall.SIGUSR2)
		p.Expect(`upgrade failed`)
		if got := get(t, p.address); !strings.HasPrefix(got, "version 2, ") {
			t.Errorf("response after the upgrade to a file %s: %q", name, got)
		}
	}

	build(t, binary, "4")
	p.signal(syscall.SIGUSR2)
	p.awaitManager("4", 2)
	result := clients.Stop()
	p.signal(syscall.SIGTERM)
	p.WaitGone()
	t.Log(result)
	if result.Failed > 0 || result.OK < 100 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.OK+result.Failed, result.Errors)
	}
}
