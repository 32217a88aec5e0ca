//go:build unix

package binary

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOnDisk(t *testing.T) {
	exe := self(t)
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, release := range []string{"42", "43"} {
		must(os.MkdirAll(filepath.Join(dir, "releases", release), 0o755))
	}
	must(os.Symlink(exe, filepath.Join(dir, "releases/42/app")))
	must(os.WriteFile(filepath.Join(dir, "releases/43/app"), []byte("#!/bin/sh"), 0o755))
	must(os.Symlink("releases/42", filepath.Join(dir, "current")))
	current := filepath.Join(dir, "current/app")
	elsewhere := t.TempDir()
	check := func(name, args0, in, path, want string) {
		t.Helper()
		t.Setenv("PATH", path)
		if got, err := OnDisk(args0, in); got != want || err != nil {
			t.Errorf("%s: OnDisk(%q, %q) = %s, %v; want %s", name, args0, in, got, err, want)
		}
	}
	check("absolute", current, elsewhere, "", current)
	check("relative", "current/app", dir, "", current)
	check("relative, in another directory", "../current/app", filepath.Join(dir, "releases"), "", current)
	check("in PATH", "app", elsewhere, filepath.Join(dir, "releases/43")+"x:"+filepath.Join(dir, "current"), current)
	check("not in PATH", "app", elsewhere, elsewhere, exe)
	check("another in PATH", "app", elsewhere, filepath.Join(dir, "releases/43"), exe)
	check("an unknown directory", "current/app", "", "", exe)
	check("missing", "current/app", elsewhere, "", exe)
	check("not a path", "worker of web", dir, dir, exe)
	check("empty", "", dir, dir, exe)
	must(os.Remove(filepath.Join(dir, "current")))
	must(os.Symlink("releases/43", filepath.Join(dir, "current")))
	check("another now", "current/app", dir, "", exe)

	t.Chdir(filepath.Join(dir, "releases/42"))
	check("here, by way of PATH", "app", filepath.Join(dir, "releases/42"), ".", filepath.Join(dir, "releases/42/app"))
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	fifo, noEntry := filepath.Join(dir, "fifo"), filepath.Join(dir, "none")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, want string
		is               error
	}{
		{"missing", noEntry, "the program is missing: open " + noEntry, fs.ErrNotExist},
		{"directory", dir, dir + " is not a program but a file of another type", nil},
		{"fifo", fifo, fifo + " is not a program but a file of another type", nil},
		{"not executable", written(t, "x", []byte("#!/bin/sh"), 0o644), "/x is not executable: chmod +x it", nil},
		{"script", written(t, "x", []byte("#!/bin/sh"), 0o755), "/x is a script", nil},
		{"this one", self(t), "", nil},
		{"a copy", copied(t), "", nil},
	} {
		b, err := Open(tt.path)
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if flags, err := unix.FcntlInt(uintptr(b.FD()), unix.F_GETFD, 0); b.FD() < 3 || err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: descriptor %d, flags %x, %v", tt.name, b.FD(), flags, err)
			}
			if b.Path() != tt.path {
				t.Errorf("%s: %s", tt.name, b.Path())
			}
		}
		if b != nil {
			b.Close()
			b.Close()
			if b.FD() != -1 {
				t.Errorf("%s: descriptor %d when closed", tt.name, b.FD())
			}
		}
	}
	if os.Geteuid() == 0 {
		return // root can read everything
	}
	if _, err := Open(written(t, "x", []byte("#!/bin/sh"), 0o100)); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod +r") {
		t.Error(err)
	}
}

func TestSame(t *testing.T) {
	path := copied(t)
	open := func(path string) *Binary {
		b, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	first := open(path)
	if again := open(path); !first.Same(again) || !again.Same(first) {
		t.Error("not the same as itself")
	}
	link := path + "link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	if !first.Same(open(link)) {
		t.Error("not the same under another name")
	}
	if first.Same(open(copied(t))) || first.Same(nil) || (*Binary)(nil).Same(first) {
		t.Error("the same as another")
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if first.Same(open(path)) {
		t.Error("the same although it was written to")
	}
}

// A file that is not a program for this machine, or not all of one, is refused.
func TestCheckProgram(t *testing.T) {
	whole, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(whole, []byte(magic)) {
		t.Skip("programs are of another format here")
	}
	changed := func(at int, value ...byte) []byte {
		return append(append(bytes.Clone(whole[:at]), value...), whole[at+len(value):]...)
	}
	ones := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	const part = "it was copied only in part"
	size, err := endOfSegments(bytes.NewReader(whole), int64(len(whole)), whole[:headerSize])
	if err != nil || size > uint64(len(whole)) {
		t.Fatalf("segments end at byte %d of %d, %v", size, len(whole), err)
	}
	end := int(size)
	first := headerSize // the table of segments usually follows the header
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"whole", whole, ""},
		{"with more behind it", append(bytes.Clone(whole), "more"...), ""},
		{"script", []byte("#!/bin/sh\nexit\n"), "is a script"},
		{"empty", nil, part},
		{"one byte", whole[:1], part},
		{"its first four bytes", whole[:4], part},
		{"half a header", whole[:30], part},
		{"its header", whole[:headerSize], part},
		{"its half", whole[:len(whole)/2], part},
		{"its segments", whole[:end], ""},
		{"all but a byte of its last segment", whole[:end-1], part},
		{"text", []byte("hello, world\n"), `it begins with "hell"`},
		{"half of a script's mark", []byte("#"), `it begins with "#"`},
		{"zeros", make([]byte, len(whole)), `it begins with "\x00`},
		{"another class", changed(4, 3-whole[4]), "another machine"},
		{"another order", changed(5, 3-whole[5]), "another machine"},
		{"another machine", changed(18, 0xfe, 0xfe), "another machine"},
		{"a table of segments beyond the end", changed(28+4*wide, ones[:4+4*wide]...), part},
		{"a segment beyond the end", changed(first+16+16*wide, ones[:4+4*wide]...), part},
		{"without segments", changed(44+12*wide, 0, 0), ""},
		// checkProgram cannot detect a copy that has its size before its content.
		{"header, and zeros", append(bytes.Clone(whole[:headerSize]), make([]byte, len(whole)-headerSize)...), ""},
	} {
		err := checkProgram(bytes.NewReader(tt.file), int64(len(tt.file)), bytes.NewReader(whole))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := checkProgram(bytes.NewReader(nil), 0, bytes.NewReader([]byte("another format"))); err != nil {
		t.Errorf("on a system with another format: %v", err)
	}
	// Open refuses such a file, too.
	path := written(t, "x", whole[:1000], 0o755)
	if _, err := Open(path); err == nil || !strings.HasPrefix(err.Error(), path+" ends at byte 1000 of ") {
		t.Error(err)
	}
}

// For any content of a file, checkProgram does not panic, and every error has a
// text.
func FuzzCheckProgram(f *testing.F) {
	tiny := func(class, order byte) []byte {
		b := append([]byte(magic), class, order, 1)
		return append(b, make([]byte, 64+56+64)...)
	}
	for _, class := range []byte{1, 2} {
		for _, order := range []byte{1, 2} {
			f.Add(tiny(class, order), tiny(class, order))
		}
	}
	f.Add([]byte("#!/bin/sh"), tiny(2, 1))
	f.Fuzz(func(t *testing.T, file, ours []byte) {
		// In a comparison with itself, the machine is always right.
		for _, ours := range [][]byte{ours, file} {
			err := checkProgram(bytes.NewReader(file), int64(len(file)), bytes.NewReader(ours))
			if err != nil && err.Error() == "" {
				t.Error("error without a text")
			}
		}
	})
}
