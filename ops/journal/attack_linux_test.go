package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/ops/record"
	"github.com/prefork-go/prefork/preforktest"
)

const attackerID = 65534 // nobody

// A user who can write to the directory of a journal, to one above it, or to its
// group, cannot make root change any other file (61). Root refuses the
// directory, or goes on in the one that it has open. It never hangs.
func TestAttack(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "only root can run a program as another user")
	}
	limit := 300 * time.Millisecond
	if *long {
		limit = time.Minute
	}
	for name, prepare := range map[string]func(parent, dir string) error{
		"owned":           func(_, dir string) error { return os.Chown(dir, attackerID, attackerID) },
		"group-writable":  func(_, dir string) error { return errors.Join(os.Chown(dir, 0, attackerID), os.Chmod(dir, 0o775)) },
		"world-writable":  func(_, dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"below owned":     func(parent, dir string) error { return os.Chown(parent, attackerID, attackerID) },
		"owned afterward": func(parent, dir string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A directory of root's is opened also if another user can move it,
			// unless that user leads there by a link.
			testAttack(t, name == "owned afterward", name == "below owned", limit, prepare)
		})
	}
}

func testAttack(t *testing.T, opens, mayOpen bool, limit time.Duration, prepare func(parent, dir string) error) {
	top := t.TempDir()
	for d := top; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	parent, canary := filepath.Join(top, "parent"), filepath.Join(top, "canary")
	dir := filepath.Join(parent, "d")
	path := filepath.Join(dir, "test.journal")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(canary, 0o755)); err != nil {
		t.Fatal(err)
	}
	names := namesOf(path)
	for i, name := range []string{"test.journal", "test.journal.lock", names.rotatedName(moment, 1, record.ReasonSize), "passwd"} {
		os.WriteFile(filepath.Join(canary, name), []byte("precious\n"), os.FileMode(0o600|i*0o22))
	}
	before := describeDir(t, canary)
	if err := prepare(parent, dir); err != nil {
		t.Fatal(err)
	}
	var j *Journal
	var err error
	if opens {
		if j, err = Open(path, Config{MaxSize: 500, KeepFiles: 2}); err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		os.Chown(parent, attackerID, attackerID)
	}
	p := preforktest.Start(t, "attacker", path, canary)
	p.Expect(`^attacks$`)
	opened, refused, writes := 0, 0, 0
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if opens {
			for range 5 {
				j.Write(Record{Event: warning("n", "1")})
				j.following, j.locking = attempt{}, attempt{}
			}
			j.Rotate()
			writes++
		} else if other, err := Open(path, Config{MaxSize: 500, KeepFiles: 2}); err == nil {
			opened++
			other.Close()
		} else {
			refused++
		}
		for _, err := range Read(path) {
			if err != nil {
				break
			}
		}
	}
	p.Kill()
	p.Wait()
	if opened > 0 && !mayOpen || opened+refused+writes == 0 {
		t.Errorf("opened %d times, refused %d times, written %d times", opened, refused, writes)
	}
	if after := describeDir(t, canary); !maps.Equal(before, after) {
		t.Errorf("files of root's were changed:\n%v\n%v", before, after)
	}
	t.Logf("opened %d times, refused %d times, written and rotated %d times", opened, refused, writes)
}

// describeDir returns the kind, owner, mode, size and content of each file.
func describeDir(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, e.Name()), &st); err != nil {
			t.Fatal(err)
		}
		content, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		files[e.Name()] = fmt.Sprintf("%d %o %d:%d %q", st.Ino, st.Mode, st.Uid, st.Gid, content)
	}
	return files
}

func init() { preforktest.Register("attacker", attacker) }

// attacker replaces files of the journal and directories above them by links to
// the files of the second argument, by FIFOs and by directories, until it is
// killed.
func attacker() {
	path, canary := os.Args[1], os.Args[2]
	// Only now: the attacker need not be permitted to execute the test binary.
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(attackerID), syscall.Setuid(attackerID)); err != nil {
		report("cannot become another user: %v", err)
		return
	}
	dir, names := filepath.Dir(path), namesOf(path)
	swap := func(name string, replace func(name string)) {
		away := name + ".away"
		os.Rename(name, away)
		replace(name)
		os.Remove(name)
		os.Rename(away, name)
	}
	wait := func() { time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond) }
	report("attacks")
	for i := 0; ; i++ {
		target := filepath.Join(canary, []string{"test.journal", "passwd", "test.journal.lock", "missing"}[rand.IntN(4)])
		file := []string{path, path + lockSuffix, filepath.Join(dir, names.rotatedName(time.Now(), int64(rand.IntN(5)+1), record.ReasonSize))}[rand.IntN(3)]
		switch rand.IntN(6) {
		case 0:
			swap(file, func(name string) { os.Symlink(target, name); wait() })
		case 1:
			swap(file, func(name string) { os.Link(target, name); wait() })
		case 2:
			swap(file, func(name string) { syscall.Mkfifo(name, 0o666); wait() })
		case 3:
			swap(dir, func(name string) { os.Symlink(canary, name); wait() })
		case 4:
			swap(dir, func(name string) {
				os.Mkdir(name, 0o755)
				os.Symlink(target, filepath.Join(name, "test.journal"))
				wait()
				os.RemoveAll(name)
			})
		case 5:
			if !strings.Contains(file, lockSuffix) {
				unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
			}
		}
	}
}
