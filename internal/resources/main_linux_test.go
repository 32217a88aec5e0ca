package resources

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	_ "net" // as in every worker; links cgo if enabled
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() {
	preforktest.Register("apply", func() {
		restrict()
		applyProgram(os.Args[1], strings.Join(os.Args[2:], ""))
	})
	preforktest.Register("check", func() {
		restrict()
		checkProgram(os.Args[1])
	})
}

// applyProgram applies a plan and then runs each line of its standard input.
// Unless mode is "bare", it does so with additional blocked threads; with
// "churn", other threads start and exit at the same time.
func applyProgram(text, mode string) {
	if mode != "bare" {
		for range 4 {
			blockThread()
		}
	}
	stopChurn := func() {}
	if mode == "churn" {
		stopChurn = churnThreads()
	}
	began := time.Now()
	err := Apply(text)
	took := time.Since(began)
	stopChurn()
	if err != nil {
		var files unix.Rlimit // the coverage data is written to a file
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
			files.Cur = files.Max
			unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
		}
		groups, _ := os.Getgroups()
		fmt.Printf("error: %v\nuid=%d euid=%d gid=%d groups=%v\n", err, os.Getuid(), os.Geteuid(), os.Getgid(), groups)
		os.Exit(1)
	}
	fmt.Printf("applied gomaxprocs=%d took=%v\n", runtime.GOMAXPROCS(0), took.Round(time.Microsecond))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "open" {
			n, err := openUntilError()
			fmt.Printf("%d: %v\n", n, err)
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", lines.Text())
		if path, ok := strings.CutPrefix(lines.Text(), "exec "); ok {
			cmd = exec.Command(path)
			cmd.Stdin = os.Stdin // a chroot has no /dev/null
		}
		out, err := cmd.CombinedOutput()
		fmt.Printf("%s (%v)\n", strings.TrimSpace(string(out)), err)
	}
}

// blockThread starts a thread that blocks until the process exits.
func blockThread() {
	started := make(chan bool)
	go func() {
		runtime.LockOSThread()
		started <- true
		select {}
	}()
	<-started
}

// churnThreads starts threads that exit at once, one after the other, until
// stop is called. More at a time would starve the C library, which waits until
// no thread is new before it changes the user.
func churnThreads() (stop func()) {
	var stopping atomic.Bool
	done := make(chan bool)
	go func() {
		for !stopping.Load() {
			started := make(chan bool)
			go func() {
				runtime.LockOSThread() // without unlocking: the thread exits with the goroutine
				started <- true
			}()
			<-started
		}
		done <- true
	}()
	return func() {
		stopping.Store(true)
		<-done
	}
}

// openUntilError returns the number of files that can be opened, and the error
// of the next one.
func openUntilError() (n int, err error) {
	for {
		f, err := os.Open("/")
		if err != nil {
			return n, err
		}
		defer f.Close()
		n++
	}
}

func checkProgram(config string) {
	var c Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	s, err := Check(c, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok", s.Plan(0))
}

// process is a program that a test controls by its standard input and output.
type process struct {
	*preforktest.Program
	t  testing.TB
	in io.WriteCloser
}

// start runs path, a test binary, as one of the programs. It must exit at the
// end of its standard input, when the test ends.
func start(t testing.TB, path string, attr *syscall.SysProcAttr, env []string, program string, args ...string) *process {
	t.Helper()
	p := preforktest.New(t, program, args...)
	p.Cmd.Path = path
	p.Cmd.Env = append(p.Cmd.Env, env...)
	p.Cmd.SysProcAttr = attr
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	t.Cleanup(func() {
		in.Close()
		p.Wait()
	})
	return &process{p, t, in}
}

// ask sends a line and returns the reply.
func (p *process) ask(question string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, question+"\n"); err != nil {
		p.t.Fatal(err)
	}
	return p.NextLine()
}

// applied starts a program with a plan and waits until it has applied it.
func applied(t *testing.T, text string, args ...string) *process {
	t.Helper()
	p := start(t, self(t), nil, nil, "apply", append([]string{text}, args...)...)
	line := p.NextLine()
	if !strings.HasPrefix(line, "applied") {
		t.Fatalf("%s: %s", text, line)
	}
	t.Log(text, line)
	return p
}

// threadValues returns the distinct values of key in /proc for all threads.
func (p *process) threadValues(key string) string {
	p.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID()))
	if err != nil || len(paths) < 5 {
		p.t.Fatalf("%d threads, %v", len(paths), err)
	}
	var all []string
	for _, path := range paths {
		if value, err := threadValue(path, key); err == nil { // else the thread has exited
			all = append(all, value)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " | ")
}

// threadValue returns the value of key for the thread with that directory.
func threadValue(path, key string) (value string, err error) {
	if key == "Nice" {
		stat, err := os.ReadFile(path + "/stat")
		if err != nil {
			return "", err
		}
		// The second field is the name, in parentheses; the 19th is the nice value.
		return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))[17], nil
	}
	status, err := os.ReadFile(path + "/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			value = strings.Join(strings.Fields(v), " ")
		}
	}
	return value, err
}

func (p *process) want(key, value string) {
	p.t.Helper()
	if got := p.threadValues(key); got != value {
		p.t.Errorf("%s of the threads: %q, want %q", key, got, value)
	}
}

// openPaths returns the files and directories that the process has open.
func (p *process) openPaths() (paths []string) {
	p.t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
	if err != nil || len(fds) == 0 {
		p.t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	for _, fd := range fds {
		if path, err := os.Readlink(fd); err == nil && strings.HasPrefix(path, "/") {
			paths = append(paths, path)
		}
	}
	return paths
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// shared returns a copy of the test binary that every user may run.
func shared(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "prefork-resources-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	copyFile(t, path, self(t), 0o755)
	return path
}

func copyFile(t testing.TB, to, from string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode.Perm()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, mode); err != nil {
		t.Fatal(err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || !hasCapability(unix.CAP_CHOWN) {
		preforktest.Skipf(t, "requires root with its capabilities")
	}
}

// settings returns the result of Check for a valid Config.
func settings(t testing.TB, c Config) *Settings {
	t.Helper()
	s, err := Check(c, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func itoa(n int) string { return strconv.Itoa(n) }

func hardLimit(t testing.TB, name string) uint64 {
	t.Helper()
	var now unix.Rlimit
	number, ok := RlimitNumber(name)
	if err := unix.Getrlimit(number, &now); !ok || err != nil {
		t.Fatalf("%s: %t, %v", name, ok, err)
	}
	return now.Max
}
