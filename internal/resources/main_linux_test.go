package resources

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	_ "net" // as in every worker: it links cgo, where that is enabled
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
)

// The test binary is its own supply of programs: TestMain runs the one that this variable names instead of the tests. It
// stays in the environment of all that come from it, so that none runs the tests by mistake.
const programVar = "RESOURCES_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch name := os.Getenv(programVar); name {
	case "":
		code := m.Run()
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); code == 0 && err != syscall.ECHILD {
			fmt.Fprintf(os.Stderr, "a process is left: wait4: %d, %v\n", pid, err)
			code = 1
		}
		os.Exit(code)
	case "apply":
		around()
		applyProgram(os.Args[1], strings.Join(os.Args[2:], ""))
	case "check":
		around()
		checkProgram(os.Args[1])
	default:
		fmt.Println("no program", name)
		os.Exit(99)
	}
}

// applyProgram follows a plan while it has threads that wait (not if it is to be bare), and, if there is to be churn, while
// others come and go. Then it runs each line of its standard input.
func applyProgram(text, mode string) {
	var stop atomic.Bool
	ended := make(chan bool)
	churn := mode == "churn"
	for i := range 4 {
		if mode == "bare" {
			break
		}
		up := make(chan bool)
		go func() {
			runtime.LockOSThread()
			up <- true
			select {}
		}()
		<-up
		if churn && i == 0 { // more would starve the C library, where it changes the user: it waits until no thread is new
			go func() {
				for !stop.Load() {
					held := make(chan bool)
					go func() {
						runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
						held <- true
					}()
					<-held
				}
				ended <- true
			}()
		}
	}
	began := time.Now()
	err := Apply(text)
	took := time.Since(began)
	if stop.Store(true); churn {
		<-ended
	}
	if err != nil {
		var files unix.Rlimit // what it has reached is written to a file
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
			var held []*os.File
			var err error
			for err == nil {
				var f *os.File
				f, err = os.Open("/")
				held = append(held, f)
			}
			fmt.Printf("%d: %v\n", len(held)-1, err)
			for _, f := range held {
				f.Close()
			}
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", lines.Text())
		if path, ok := strings.CutPrefix(lines.Text(), "exec "); ok {
			cmd = exec.Command(path)
			cmd.Stdin = os.Stdin // there is no /dev/null in a chroot
		}
		out, err := cmd.CombinedOutput()
		fmt.Printf("%s (%v)\n", strings.TrimSpace(string(out)), err)
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

// A process of a test, which it speaks to on its standard input and output.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// start starts the file path, a test binary, as a program.
func start(t testing.TB, path string, attr *syscall.SysProcAttr, env []string, program string, args ...string) *process {
	t.Helper()
	// The context of the test ends before its cleanup, and would have the program killed, which is to end itself.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), programVar+"="+program, "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
		cancel()
	})
	return p
}

func (p *process) line() string {
	p.t.Helper()
	line, err := p.lines.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

// ask sends a line and returns the answer.
func (p *process) ask(question string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, question+"\n"); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

// applied starts a program that follows a plan, and waits until it has.
func applied(t *testing.T, text string, args ...string) *process {
	t.Helper()
	p := start(t, self(t), nil, nil, "apply", append([]string{text}, args...)...)
	line := p.line()
	if !strings.HasPrefix(line, "applied") {
		t.Fatalf("%s: %s", text, line)
	}
	t.Log(text, line)
	return p
}

// inForce is what /proc says of all threads of a process, seen from outside: the values of key, each once.
func (p *process) inForce(key string) string {
	p.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil || len(paths) < 5 {
		p.t.Fatalf("%d threads, %v", len(paths), err)
	}
	var all []string
	for _, path := range paths {
		value := ""
		if key == "Nice" {
			stat, err := os.ReadFile(path + "/stat")
			if err != nil {
				continue // the thread has ended
			}
			// The name, in parentheses, is the second field, the nice value is the 19th.
			value = strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))[17]
		} else {
			status, err := os.ReadFile(path + "/status")
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(status)) {
				if v, ok := strings.CutPrefix(line, key+":"); ok {
					value = strings.Join(strings.Fields(v), " ")
				}
			}
		}
		all = append(all, value)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " | ")
}

func (p *process) want(key, value string) {
	p.t.Helper()
	if got := p.inForce(key); got != value {
		p.t.Errorf("%s of the threads: %q, want %q", key, got, value)
	}
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// shared is a copy of the test binary that every user may run.
func shared(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "prefork-resources-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(self(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "program"), data, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "program")
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || !has(0) {
		t.Skip("needs root with its capabilities: user, chroot and lower nice values cannot be tested")
	}
}

// settings is what Check makes of a Config that is right.
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
	number, ok := rlimit(name)
	if err := unix.Getrlimit(number, &now); !ok || err != nil {
		t.Fatalf("%s: %t, %v", name, ok, err)
	}
	return now.Max
}
