//go:build unix

package process_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// The quick start of README.md prints the lines that README.md shows, and
// answers as it shows.
func TestQuickStart(t *testing.T) {
	if testing.Short() {
		preforktest.Skipf(t, "a program is built")
	}
	preforktest.NeedCommand(t, "go", "install Go")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, shown := blocks(string(readme), "go"), blocks(string(readme), "text")
	if len(programs) != 1 || len(shown) != 2 {
		t.Fatalf("README.md has %d programs and %d blocks of output, want 1 and 2: adapt this test", len(programs), len(shown))
	}
	dir := preforktest.SocketDir(t)
	socket := filepath.Join(dir, "socket") // the port of README.md may be in use
	write(t, filepath.Join(dir, "main.go"), strings.Replace(programs[0], `"tcp", "127.0.0.1:8080"`, fmt.Sprintf(`"unix", %q`, socket), 1))
	write(t, filepath.Join(dir, "greeting.txt"), "hello\n")
	binary := filepath.Join(dir, "hello")
	build := exec.Command("go", "build", "-o", binary, filepath.Join(dir, "main.go"))
	build.Dir = "../.." // the module of the library
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	cmd.Dir = dir
	p := preforktest.Command(t, cmd).Start()
	p.ExpectN(2, `worker ready`)
	answers := []string{get(t, socket)}
	write(t, filepath.Join(dir, "greeting.txt"), "good evening\n")
	p.Signal(syscall.SIGHUP)
	p.Expect(`workers replaced`)
	preforktest.WaitFor(t, "the previous workers are gone", func() bool { // they accept until then
		return strings.Count(strings.Join(p.Lines(), "\n"), "worker gone") == 2
	})
	answers = append(answers, get(t, socket))
	p.Signal(syscall.SIGINT)
	if state := p.Wait(); !state.Success() {
		t.Errorf("the program ended with %v", state)
	}

	printed := p.Lines()
	for i, line := range printed {
		printed[i] = withoutNumbers(line)
	}
	for _, line := range lines(shown[0]) {
		if !slices.Contains(printed, withoutNumbers(line)) {
			t.Errorf("README.md shows a line that the program does not print: %s", line)
		}
	}
	for i, line := range lines(shown[1]) {
		if got := withoutNumbers(answers[i]); got != withoutNumbers(line) {
			t.Errorf("README.md shows the answer %q, and the program answered %q", line, got)
		}
	}
}

// blocks returns the fenced blocks of a language.
func blocks(text, language string) (found []string) {
	pattern := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$")
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// lines returns the lines of a block, except the commands.
func lines(block string) (found []string) {
	for line := range strings.Lines(block) {
		if !strings.HasPrefix(line, "$ ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// withoutNumbers removes times and pids, and the number of the worker that
// answered: any of them may.
func withoutNumbers(line string) string {
	line = regexp.MustCompile(`^\d+/\d+/\d+ \d+:\d+:\d+ `).ReplaceAllString(line, "")
	line = regexp.MustCompile(`^worker \d+,`).ReplaceAllString(line, "worker N,")
	line = regexp.MustCompile(` program=\S+`).ReplaceAllString(line, " program=N")
	return regexp.MustCompile(`\b(pid[= ]|HUP )\d+`).ReplaceAllString(line, "${1}N")
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, socket string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://127.0.0.1:8080/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}
