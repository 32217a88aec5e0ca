package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("attacker", attacker) }

// serviceFiles are the names of the files of the attacked service.
var serviceFiles = []string{"web.pid", "web.stopped", "web.paused"}

// attacker replaces the files of a service and its directory with links to the
// files of root, FIFOs and its own files, until its standard input ends. The
// arguments are the directory that it can change, the one of the service in it,
// and the one of root's files.
func attacker() {
	setUser(otherUID)
	top, dir, canary := os.Args[1], os.Args[2], os.Args[3]
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	report("attacks")
	succeeded := make(map[string]int)
	for n := 0; ; n++ {
		select {
		case <-done:
			report("succeeded: %v", succeeded)
			return
		default:
		}
		name := serviceFiles[rand.IntN(len(serviceFiles))]
		at, target := filepath.Join(dir, name), filepath.Join(canary, name)
		if rand.IntN(2) == 0 {
			target = filepath.Join(canary, "data")
		}
		aside := filepath.Join(top, "aside")
		try := func(what string, err error) {
			if err == nil {
				succeeded[what]++
			}
		}
		switch rand.IntN(12) {
		case 0:
			try("remove", os.Remove(at))
		case 1:
			os.Remove(at)
			try("symlink", os.Symlink(target, at))
		case 2:
			os.Remove(at)
			try("link", os.Link(target, at))
		case 3:
			os.Remove(at)
			try("FIFO", syscall.Mkfifo(at, 0o666))
		case 4:
			os.Remove(at)
			try("file", os.WriteFile(at, []byte(strconv.Itoa(os.Getppid())+"\n"), 0o666))
		case 5:
			try("rename", os.Rename(at, filepath.Join(dir, serviceFiles[rand.IntN(len(serviceFiles))])))
		case 6:
			os.Remove(at)
			try("directory", os.Mkdir(at, 0o777))
		case 7:
			if f, err := os.OpenFile(at, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
				try("lock", syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
				f.Close()
			}
		case 8, 9: // swap the directory for a link to root's
			if dir == top {
				continue
			}
			if os.Rename(dir, aside) == nil {
				try("directory swapped", os.Symlink(canary, dir))
			}
		case 10, 11:
			if dir == top {
				continue
			}
			if os.Remove(dir) == nil || missing(dir) {
				if os.Rename(aside, dir) != nil {
					os.Mkdir(dir, 0o777)
				}
			}
		}
	}
}

// fileState describes a file, so that a change of it shows.
func fileState(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	state := fmt.Sprintf("%s: %v, user %d, group %d, %d names, inode %d", path, info.Mode(), st.Uid, st.Gid, st.Nlink, st.Ino)
	if info.Mode().IsRegular() {
		content, err := os.ReadFile(path)
		state += fmt.Sprintf(", %q %v", content, err)
	}
	return state
}

func dirState(t *testing.T, dir string) (state string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		state += fileState(t, filepath.Join(dir, e.Name())) + "\n"
	}
	return state
}

// A user who can change the directory of root's service, or its parent, does not
// get root to touch another file. With -long that is tried for a minute.
func TestAttack(t *testing.T) {
	preforktest.NeedRoot(t)
	other, _ := strconv.Atoi(otherUID)
	for _, c := range []struct {
		name     string
		mode     os.FileMode
		uid, gid int
	}{
		{"sticky", 0o777 | os.ModeSticky, 0, 0},
		{"group", 0o775, 0, other},
		{"foreign", 0o755, other, other},
	} {
		for _, below := range []string{"", "run"} {
			t.Run(strings.TrimSuffix(c.name+"/"+below, "/"), func(t *testing.T) {
				base := t.TempDir()
				top, canary := filepath.Join(base, "top"), filepath.Join(base, "canary")
				dir := filepath.Join(top, below)
				err := errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(canary, 0o755))
				makeWorldWritable(t, top)
				err = errors.Join(err, os.Chown(top, c.uid, c.gid), os.Chmod(top, c.mode))
				for _, name := range append([]string{"data"}, serviceFiles...) {
					err = errors.Join(err, os.WriteFile(filepath.Join(canary, name), []byte("precious\n"), 0o644))
				}
				if err != nil {
					t.Fatal(err)
				}
				before := dirState(t, canary)
				attack(t, top, dir, canary)
				if after := dirState(t, canary); after != before {
					t.Errorf("root's files were\n%sand are\n%s", before, after)
				}
			})
		}
	}
}

// attack uses a service while it is attacked.
func attack(t *testing.T, top, dir, canary string) {
	t.Helper()
	limit := 80 * time.Millisecond
	if *long {
		limit = 10 * time.Second
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "attacker", top, dir, canary)
	p.Cmd.Stdin = r
	p.Start()
	p.Expect(`^attacks$`)
	uses := make(map[string]int) // successes
	count := func(what string, err error) {
		if err == nil {
			uses[what]++
		}
	}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		s, err := service.New("web", dir)
		count("New", err)
		if err != nil {
			continue
		}
		s.Poll = time.Millisecond
		s.Logger = slog.New(slog.DiscardHandler)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		l, err := s.Begin(ctx)
		count("Begin", err)
		count("Pause", s.Pause())
		if err == nil {
			for range 3 {
				time.Sleep(time.Millisecond)
				s.Stopped()
				s.Paused()
			}
			count("Close", l.Close())
		}
		_, err = s.Resume()
		count("Resume", err)
		_, err = s.Zap(ctx, service.Escalation{})
		count("Zap", err)
		_, err = s.Start()
		count("Start", err)
		cancel()
	}
	w.Close()
	t.Logf("uses: %v; attacks %s", uses, p.Expect(`^succeeded: (.*)$`)[1])
	p.Wait()
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return err != nil
}
