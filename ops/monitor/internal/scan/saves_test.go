//go:build unix

package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The system calls of one save of the program "web", as strace shows them.
type saver struct {
	t   *testing.T
	dir string
}

func (s saver) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s saver) path(name string) string { return filepath.Join(s.dir, name) }

// write opens a file, writes it in parts, and closes it.
func (s saver) write(name string, flags int, mode os.FileMode, parts ...string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_WRONLY|flags, mode)
	s.must(err)
	for _, part := range parts {
		_, err := f.WriteString(part)
		s.must(err)
	}
	s.must(f.Close())
}

func (s saver) rename(from, to string) { s.t.Helper(); s.must(os.Rename(s.path(from), s.path(to))) }
func (s saver) remove(name string)     { s.t.Helper(); s.must(os.Remove(s.path(name))) }
func (s saver) chmod(name string, mode os.FileMode) {
	s.t.Helper()
	s.must(os.Chmod(s.path(name), mode))
}
func (s saver) symlink(target, name string) { s.t.Helper(); s.must(os.Symlink(target, s.path(name))) }

const (
	create = os.O_CREATE
	excl   = os.O_CREATE | os.O_EXCL
	trunc  = os.O_CREATE | os.O_TRUNC
)

// vimBegins makes the swap file, and tries whether files can be created.
func (s saver) vimBegins() {
	s.write(".web.swp", excl, 0o600)
	s.write(".web.swx", excl, 0o600)
	s.remove(".web.swx")
	s.remove(".web.swp")
	s.write(".web.swp", excl, 0o600, "swap")
	s.write("4913", excl, 0o755)
	s.remove("4913")
}

func (s saver) vimEnds() {
	s.remove("web~")
	s.remove(".web.swp")
}

var saves = []struct {
	name string
	save func(s saver)
}{
	{"vim, backupcopy=no or auto", func(s saver) {
		s.vimBegins()
		s.rename("web", "web~")
		s.write("web", create, 0o644, "one", "two")
		s.chmod("web", 0o755)
		s.vimEnds()
	}},
	{"vim, backupcopy=yes", func(s saver) {
		s.vimBegins()
		s.write("web~", excl, 0o755, "old")
		s.write("web", trunc, 0o755, "one", "two")
		s.chmod("web", 0o755)
		s.vimEnds()
	}},
	{"vim, 4913 was there, and the backup stays", func(s saver) {
		s.write(".web.swp", excl, 0o600)
		s.write("4913", trunc, 0o755)
		s.write("5036", excl, 0o755)
		s.remove("5036")
		s.rename("web", "web~")
		s.write("web", create, 0o644, "one")
		s.chmod("web", 0o755)
	}},
	{"emacs", func(s saver) {
		s.symlink("me@host.123:456", ".#web")
		s.write("#web#", create, 0o600, "autosave")
		s.rename("web", "web~")
		s.write("web", trunc, 0o644, "one", "two")
		s.chmod("web", 0o755)
		s.remove("#web#")
		s.remove(".#web")
	}},
	{"emacs, backup-by-copying", func(s saver) {
		s.symlink("me@host.123:456", ".#web")
		s.write("web~", excl, 0o600, "old")
		s.chmod("web~", 0o755)
		s.write("web", trunc, 0o644, "one")
		s.remove(".#web")
	}},
	{"nano", func(s saver) {
		s.write(".web.swp", excl, 0o644, "lock")
		s.write("web", trunc, 0o666, "one", "two")
		s.remove(".web.swp")
	}},
	{"nano with a backup", func(s saver) {
		s.write("web~", excl, 0o600, "old")
		s.chmod("web~", 0o755)
		s.write("web", trunc, 0o666, "one")
	}},
	{"VS Code", func(s saver) {
		s.write("web", os.O_TRUNC, 0o666)
		s.write("web", 0, 0o666, "one", "two")
	}},
	{"gedit", func(s saver) {
		s.write(".goutputstream-ABCDEF", excl, 0o600, "one")
		s.chmod(".goutputstream-ABCDEF", 0o755)
		s.rename(".goutputstream-ABCDEF", "web")
	}},
	{"sed -i", func(s saver) {
		s.write("sedAbCdEf", excl, 0o600, "one")
		s.chmod("sedAbCdEf", 0o755)
		s.rename("sedAbCdEf", "web")
	}},
	{"sed -i.bak", func(s saver) {
		s.write("sedAbCdEf", excl, 0o600, "one")
		s.chmod("sedAbCdEf", 0o755)
		s.rename("web", "web.bak")
		s.rename("sedAbCdEf", "web")
	}},
	{"perl -i", func(s saver) {
		s.remove("web")
		s.write("web", excl, 0o600, "one")
		s.chmod("web", 0o755)
	}},
	{"cp", func(s saver) { s.write("web", os.O_TRUNC, 0, "one", "two", "three") }},
	{"cp --remove-destination", func(s saver) {
		s.remove("web")
		s.write("web", excl, 0o755, "one")
	}},
	{"install", func(s saver) {
		s.remove("web")
		s.write("web", excl, 0o600, "one", "two")
		s.chmod("web", 0o600)
		s.chmod("web", 0o755)
	}},
	{"git checkout", func(s saver) {
		s.remove("web")
		s.write("web", excl, 0o777, "one")
	}},
	{"mv over it", func(s saver) {
		s.write("../web", create, 0o755, "one")
		s.rename("../web", "web")
	}},
	{"rsync", func(s saver) {
		s.write(".web.AbCdEf", excl, 0o600, "one", "two")
		s.must(os.Chtimes(s.path(".web.AbCdEf"), time.Time{}, time.Unix(1e9, 0)))
		s.chmod(".web.AbCdEf", 0o755)
		s.rename(".web.AbCdEf", "web")
	}},
	{"written beside it, renamed, then made executable", func(s saver) {
		s.write("web.tmp", excl, 0o644, "one")
		s.rename("web.tmp", "web")
		s.chmod("web", 0o755)
	}},
	{"dpkg", func(s saver) {
		s.write("web.dpkg-new", excl, 0o000, "one")
		s.chmod("web.dpkg-new", 0o755)
		s.must(os.Link(s.path("web"), s.path("web.dpkg-tmp")))
		s.rename("web.dpkg-new", "web")
		s.remove("web.dpkg-tmp")
	}},
	{"a link that is switched", func(s saver) {
		s.write("../web.2", create, 0o755, "one")
		s.symlink("../web.2", ".web.new")
		s.rename(".web.new", "web")
	}},
}

// Each save is one change, and nothing else. All settle at the same time.
func TestSaves(t *testing.T) {
	t.Parallel()
	watches := make([]*watch, len(saves))
	for i, c := range saves {
		dir := filepath.Join(t.TempDir(), "services")
		mkdir(t, dir)
		writeFile(t, filepath.Join(dir, "web"), 0o755, "old content")
		writeFile(t, filepath.Join(dir, "beside"), 0o755, "other")
		w, first := startWatch(t, newWatcher(Config{Dir: dir, Settle: slowSettle}))
		if got := fmt.Sprint(texts(first)); got != "[added beside added web]" {
			t.Fatalf("%s: first: %s", c.name, got)
		}
		c.save(saver{t, dir})
		w.mark()
		watches[i] = w
	}
	for i, w := range watches {
		if got := w.sinceMark(); len(got) != 1 || got[0] != "changed web" {
			t.Errorf("%s: changes: %q, want changed web", saves[i].name, got)
		}
	}
}

// The same as new files: one is added.
func TestFirstSave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := startWatch(t, newWatcher(Config{Dir: dir, Settle: slowSettle}))
	s := saver{t, dir}
	s.write("cp", excl, 0o755, "one", "two")
	s.write("install", excl, 0o600, "one")
	s.chmod("install", 0o755)
	s.write("4913", excl, 0o755)
	s.write("shell", create, 0o644, "one")
	s.chmod("shell", 0o755)
	s.write("sedAbCdEf", excl, 0o600, "one")
	s.chmod("sedAbCdEf", 0o755)
	s.rename("sedAbCdEf", "sed")
	s.write("notes.txt", create, 0o644, "one")
	w.expect("added cp", "added install", "passed over notes.txt (not executable)", "added sed", "added shell")
	s.write("notes.txt", trunc, 0o644, "two")
	s.chmod("shell", 0o644)
	s.remove("install")
	w.expect("removed install", "removed shell (not executable)")
	s.chmod("shell", 0o755)
	s.remove("notes.txt")
	w.expect("added shell")
}
