package scan

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

const savesOfEach = 10

// realSaves are saves by the programs themselves, of the files web-0 to web-9.
var realSaves = []struct {
	command, hint string
	optional      bool
	prepare, save func(t *testing.T, path, dir string)
}{
	{"vim", "Debian: apt-get install vim", false, nil, func(t *testing.T, vim, dir string) {
		for i, file := range files(dir) {
			copying := []string{"yes", "no", "auto"}[i%3]
			script(t, dir, vim, "-es", "-u", "NONE", "-i", "NONE", "-c", "set backupcopy="+copying+" swapfile updatecount=1",
				"-c", "%s/old/new/", "-c", "wq", file)
		}
	}},
	{"nano", "Debian: apt-get install nano", false, nil, func(t *testing.T, nano, dir string) {
		for _, file := range files(dir) {
			typeInto(t, exec.Command(nano, "--ignorercfiles", file), "GNU nano", "x\x0f", "File Name to Write", "\r", "Wrote", "\x18")
		}
	}},
	{"sed", "it is in every system", false, nil, func(t *testing.T, sed, dir string) {
		script(t, dir, sed, append([]string{"-i", "s/old/new/"}, files(dir)...)...)
	}},
	{"install", "it is in every system", false, nil, func(t *testing.T, install, dir string) {
		for _, file := range files(dir) {
			script(t, dir, install, "-m", "755", "../new", file)
		}
	}},
	{"cp", "it is in every system", false, nil, func(t *testing.T, cp, dir string) {
		for _, file := range files(dir) {
			script(t, dir, cp, "../new", file)
		}
	}},
	{"git", "Debian: apt-get install git", false, func(t *testing.T, git, dir string) {
		commit := []string{"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qam"}
		script(t, dir, git, "init", "-q")
		script(t, dir, git, "add", ".")
		script(t, dir, git, append(commit, "old")...)
		script(t, dir, git, "tag", "old")
		for _, file := range files(dir) {
			writeFile(t, file, 0o755, "#!/bin/sh\necho new\n")
		}
		script(t, dir, git, append(commit, "new")...)
		script(t, dir, git, "tag", "new")
		script(t, dir, git, "checkout", "-q", "old")
	}, func(t *testing.T, git, dir string) { script(t, dir, git, "checkout", "-q", "new") }},
	{"rsync", "Debian: apt-get install rsync", true, nil, func(t *testing.T, rsync, dir string) {
		from := filepath.Join(dir, "../from")
		for _, file := range files(from) {
			os.Mkdir(from, 0o755)
			writeFile(t, file, 0o755, "#!/bin/sh\necho something new\n")
		}
		script(t, dir, rsync, "-a", from+"/", dir)
	}},
	{"emacs", "Debian: apt-get install emacs-nox", true, nil, func(t *testing.T, emacs, dir string) {
		for _, file := range files(dir) {
			script(t, dir, emacs, "-Q", "--batch", file, "--eval", `(progn (setq create-lockfiles t) (insert "# new\n") (save-buffer))`)
		}
	}},
}

// files returns the paths of the programs in a directory.
func files(dir string) (paths []string) {
	for i := range savesOfEach {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("web-%d", i)))
	}
	return paths
}

func script(t *testing.T, dir, command string, args ...string) {
	t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(dir), "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// Ten saves by each of these programs are ten changes. All settle at the same
// time.
func TestRealSaves(t *testing.T) {
	t.Parallel()
	watches := make(map[string]*watch)
	for _, c := range realSaves {
		path, err := exec.LookPath(c.command)
		if err != nil {
			continue
		}
		dir := filepath.Join(t.TempDir(), "services")
		mkdir(t, dir)
		writeFile(t, filepath.Join(dir, "../new"), 0o755, "#!/bin/sh\necho new\n")
		for _, file := range files(dir) {
			writeFile(t, file, 0o755, "#!/bin/sh\necho old\n")
		}
		if c.prepare != nil {
			c.prepare(t, path, dir)
		}
		w, first := startWatch(t, newWatcher(Config{Dir: dir, Settle: slowSettle}))
		if len(first) != savesOfEach {
			t.Fatalf("%s: first: %q", c.command, texts(first))
		}
		c.save(t, path, dir)
		w.mark()
		watches[c.command] = w
	}
	for _, c := range realSaves {
		t.Run(c.command, func(t *testing.T) {
			w := watches[c.command]
			if w == nil && c.optional {
				preforktest.Skipf(t, "%s is not installed: %s", c.command, c.hint)
			} else if w == nil {
				preforktest.NeedCommand(t, c.command, c.hint)
			}
			var want []string
			for _, file := range files(w.dir) {
				want = append(want, "changed "+filepath.Base(file))
				if content, err := os.ReadFile(file); err != nil || bytes.Equal(content, []byte("#!/bin/sh\necho old\n")) {
					t.Errorf("%s was not saved: %q, %v", file, content, err)
				}
			}
			if got := w.sinceMark(); strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("changes: %q, want %q", got, want)
			}
		})
	}
}

// typeInto runs a command on a terminal. It waits until the command has written
// the first of each pair of texts, and types the second.
func typeInto(t *testing.T, cmd *exec.Cmd, pairs ...string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		preforktest.Skipf(t, "no terminals here: %v", err)
	}
	terminal := os.NewFile(uintptr(fd), "terminal")
	defer terminal.Close()
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	terminal.SetReadDeadline(time.Now().Add(30 * time.Second))
	var out, all []byte
	for buf := make([]byte, 4096); len(pairs) > 0; {
		n, err := terminal.Read(buf)
		if err != nil {
			t.Fatalf("%v: %v, it has written %q", cmd.Args, err, all)
		}
		out, all = append(out, buf[:n]...), append(all, buf[:n]...)
		if bytes.Contains(out, []byte(pairs[0])) {
			terminal.WriteString(pairs[1])
			pairs, out = pairs[2:], nil
		}
	}
	go func() {
		for buf := make([]byte, 4096); ; {
			if _, err := terminal.Read(buf); err != nil {
				return
			}
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v, it has written %q", cmd.Args, err, all)
	}
}
