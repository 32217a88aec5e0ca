package chain

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	programs := make(map[string]func())
	for name := range usages {
		programs[name] = func() { os.Exit(Main(name, os.Args[1:], os.Stderr)) }
	}
	preforktest.Main(m, programs)
}

// probe prints what Main can change, without a process of its own.
const probe = `
for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ] || closed="$closed $fd"; done
exec >&9
echo "$0, $(pwd), closed:$closed, UID=${UID-no} GID=${GID-no} A=${A-no} B=${B-no} C=${C-no} D=${D-no}"
while read -r key value; do case $key in Uid:|Gid:|Groups:) echo "$key $value";; esac; done </proc/$$/status
while read -r line; do echo "$line"; done </proc/$$/limits
read -r stat </proc/$$/stat
set -- ${stat#*) }
echo "nice ${17}"
[ $$ = $3 ] && echo "leads a group"
[ $$ = $4 ] && echo "leads a session"
exit 0
`

// A call is a program of this package, or the original, and what came of it.
type call struct {
	name   string // of a program
	path   string // of the original; "" for ours
	dir    string
	args   []string
	stderr string
}

func (c *call) run(t *testing.T) (out string, status int) {
	t.Helper()
	cmd := exec.Command(c.path, c.args...)
	if c.path == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(self, c.args...)
	}
	cmd.Args[0] = c.name
	cmd.Env = append(preforktest.Environ(t, c.name), "B=old", "PATH=noexec:/usr/local/bin:/usr/bin:/bin:.")
	cmd.Dir = c.dir
	r, w, err := os.Pipe() // the standard streams may be closed
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var stdout, stderr, extra bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), &stdout, &stderr
	cmd.ExtraFiles = []*os.File{3 + 3: w} // number 9
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	extra.ReadFrom(r)
	err = cmd.Wait()
	c.stderr = stderr.String()
	status = cmd.ProcessState.ExitCode()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return stdout.String() + extra.String(), status
}

// write makes files in a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Each row is run by runit's chpst and by ours: the program sees the same, and the
// exit status is the same.
func TestAsChpst(t *testing.T) {
	chpst := preforktest.NeedCommand(t, "chpst", "Debian: apt-get install runit")
	root := os.Geteuid() == 0
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"env/A": "one \t\ntwo", "env/B": "", "env/C": "x\x00y", "env/D": "\n", "env/.hidden": "x",
		"path/PATH": dir + "/bin", "bin/mine": "#!/bin/sh\necho mine\n", "script": "echo no interpreter\n", "noexec/true": "", "noexec/plain": "",
	})
	for _, name := range []string{"script", "noexec/true", "noexec/plain"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sh := []string{"/bin/sh", "-c", probe}
	type row struct {
		name string
		args []string
		root bool // only as root
	}
	var rows []row
	add := func(name, args string) { rows = append(rows, row{name, append(strings.Fields(args), sh...), false}) }
	addRoot := func(name, args string) { rows = append(rows, row{name, append(strings.Fields(args), sh...), true}) }
	for _, args := range []string{
		"", "-P", "-b other", "-e env", "-n 3", "-n 30", "-0", "-1", "-2", "-01", "-v", "-P -n 1 -b x",
		"-m 500000000", "-d 300000000", "-o 30", "-p 4000", "-f 100000", "-c 0", "-r 1000000", "-t 50", "-o 99999999999", "-o 30 -o 40", "-c 18446744073709551615",
		"-l lock", "-L lock", "-e nonexistent", "-o x", "-o -1", "-n x", "-z", "-u nobody:nosuchgroup", "-u no-such-user", "-u :1", "-u 1", "-u", "-U no-such-user",
		"-l nodir/lock", "-L nodir/lock", "-U nobody", "-U :5:6", "-U :5:6:7", "-U root:daemon:bin", "-- ", "-P --",
	} {
		add("chpst", args)
	}
	for _, args := range []string{
		"-u nobody", "-u nobody:daemon:bin", "-u :12:13", "-u :12:13:14:15", "-u nobody -U daemon -n 2 -P -o 20", "-n -3", "-/ /", "-/ / -u :7:8", "-u root", "-/ nonexistent",
		"-u nobody -l owned",
	} {
		addRoot("chpst", args)
	}
	for _, args := range []string{"", "-a 500000000", "-m 500000000", "-d 300000000", "-o 30", "-p 4000", "-f 100000", "-c 0", "-r 1000000", "-s 4000000", "-l 65536", "-t 50"} {
		add("softlimit", args)
	}
	add("envdir", "env")
	add("envdir", "nonexistent")
	add("envuidgid", "daemon")
	add("envuidgid", "no-such-user")
	addRoot("setuidgid", "nobody")
	add("setuidgid", "no-such-user")
	add("pgrphack", "")
	add("setlock", "lock")
	add("setlock", "nodir/lock")
	add("setlock", "-x nodir/lock")
	add("setlock", "-xX nodir/lock")
	for name, n := range map[string]int{"chpst": 0, "softlimit": 0, "envdir": 1, "setuidgid": 1, "envuidgid": 1, "setlock": 1, "pgrphack": 0} {
		for i := range n + 1 {
			rows = append(rows, row{name, []string{"env"}[:i], false})
		}
	}
	for _, args := range []string{"no-such-program", "./no-such-program", "./script", "./env", "-e path mine", "-e path env", "-b", "true", "plain"} {
		rows = append(rows, row{"chpst", strings.Fields(args), false})
	}
	// A variable of a script that is not set leaves an empty value.
	for _, args := range []string{"-u", "-U", "-e", "-/", "-b", "-l"} {
		rows = append(rows, row{"chpst", append([]string{args, ""}, sh...), false})
	}
	for _, name := range []string{"setuidgid", "envuidgid", "envdir", "setlock"} {
		rows = append(rows, row{name, append([]string{""}, sh...), false})
	}
	for _, r := range rows {
		if r.root && !root || testprog.Race() && !r.root { // one goroutine has no race
			continue
		}
		name := r.name + " " + strings.ReplaceAll(strings.Join(r.args, " "), probe, "...")
		theirs := call{name: r.name, path: chpst, dir: dir, args: r.args}
		want, wantStatus := theirs.run(t)
		os.Remove(filepath.Join(dir, "owned"))
		ours := call{name: r.name, dir: dir, args: r.args}
		got, status := ours.run(t)
		if status != wantStatus || got != want {
			t.Errorf("%s: exit %d, want %d\n%s\nwant\n%s\nstderr %s", name, status, wantStatus, got, want, ours.stderr)
		}
		if (status == 0) != (ours.stderr == "") {
			t.Errorf("%s: exit %d, stderr %q", name, status, ours.stderr)
		}
	}
	t.Log(len(rows), "rows")
	if !root {
		t.Log("rows with other users, roots and priorities need root")
	}
}

// The messages for a user.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"dos": "#!/bin/sh\r\n", "gone": "#!/nonexistent/sh\n", "none": "echo\n", "plain": "x"})
	if err := os.Chmod(filepath.Join(dir, "plain"), 0o644); err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(dir, "held")
	f, err := os.Create(held)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"./dos":                       "ends with CR",
		"./gone":                      "its interpreter /nonexistent/sh does not exist",
		"./none":                      "a script must begin with #!",
		"./plain":                     "permission denied",
		"./nothing":                   "cannot execute ./nothing: no such file",
		"nothing":                     "PATH has no file of this name",
		"-u nosuch true":              `no user "nosuch"`,
		"-u root:nosuch true":         `no group "nosuch"`,
		"-u :1 true":                  "give numbers as :UID:GID",
		"-u :1:4294967295 true":       `"4294967295" is not a number`,
		"-n x true":                   "-n x: it is not a number",
		"-o many true":                "a limit is a number, or =",
		"-C nosuch true":              "cannot change the directory: chdir nosuch",
		"-e nosuch true":              "nosuch: no such file",
		"-L held true":                "another process holds the lock held",
		"-l nodir/x true":             "cannot open the lock: open nodir/x",
		"":                            "no program",
		"-v -o 1000000000000000 true": "the limit nofile is the hard one",
	} {
		c := call{name: "prefork exec", dir: dir, args: strings.Fields(args)}
		_, status := c.run(t)
		if !strings.Contains(c.stderr, want) {
			t.Errorf("%s: exit %d, %q, want %q", args, status, c.stderr, want)
		}
	}
}

// Differences from chpst of runit 2.1.2.
func TestBeyondChpst(t *testing.T) {
	dir := t.TempDir()
	run := func(name, args string) (string, int) {
		t.Helper()
		c := call{name: name, dir: dir, args: strings.Fields(args)}
		return c.run(t)
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, status := run("prefork exec", "-C sub pwd"); out != sub+"\n" || status != 0 {
		t.Errorf("-C: %q, %d", out, status)
	}
	c := call{name: "prefork exec", dir: dir, args: []string{"-C", "", "pwd"}}
	if out, status := c.run(t); out != "" || status != exitFailed {
		t.Errorf("-C of nothing: %q, %d", out, status)
	}
	if out, _ := run("prefork exec", "-N grep NoNewPrivs /proc/self/status"); !strings.HasSuffix(out, "\t1\n") {
		t.Errorf("-N: %q", out)
	}
	hard, _ := run("chpst", "prlimit --nofile -o HARD --noheadings")
	if out, _ := run("softlimit", "-o 10 -o = prlimit --nofile -o SOFT --noheadings"); out != hard {
		t.Errorf("-o =: %q, want %q", out, hard)
	}
	// The limits are set when the Go runtime needs no more memory, and that of open
	// files is the one from before its start.
	t.Setenv("LARGE", strings.Repeat("x", 110_000))
	for range 20 {
		if _, status := run("softlimit", "-m 3000000 true"); status != 0 {
			t.Fatalf("-m 3000000: exit %d", status)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c = call{name: "chpst", path: "/bin/sh", args: []string{"-c", `ulimit -S -n 77; exec "$0" -v sh -c 'ulimit -S -n'`, self}}
	if out, status := c.run(t); out != "77\n" || status != 0 {
		t.Errorf("open files: %q, %d, want 77", out, status)
	}
	// As setlock(8) has it; -n and -N of runit 2.1.2 are exchanged.
	f, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{"-n": exitFailed, "-nx": 0, "-nX": exitFailed, "-Nn": exitFailed, "-nxX": exitFailed} {
		if out, status := run("setlock", args+" lock echo ran"); status != want || out != "" {
			t.Errorf("setlock %s of a held lock: exit %d, %q; want %d", args, status, out, want)
		}
	}
	waits := preforktest.New(t, "setlock", "lock", "echo", "ran")
	waits.Cmd.Dir = dir
	waits.Start()
	for !blockedInFlock(waits.PID()) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", waits.PID())); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	waits.Expect("^ran$")
	waits.Wait()
	if _, status := run("setlock", "-n lock true"); status != 0 {
		t.Errorf("a free lock: exit %d", status)
	}
	if _, status := run("setlock", "lock flock -n lock true"); status != 1 {
		t.Errorf("flock -n below setlock: exit %d, want 1: the program has the lock", status)
	}
}

// blockedInFlock reports whether a thread of the process waits for a lock.
func blockedInFlock(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		if n, _, _ := strings.Cut(string(data), " "); n == fmt.Sprint(syscall.SYS_FLOCK) {
			return true
		}
	}
	return false
}
