//go:build unix

package inherit

import (
	"bytes"
	"encoding/binary"
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
	check("a directory that cannot be told", "current/app", "", "", exe)
	check("missing", "current/app", elsewhere, "", exe)
	check("not a path", "worker of web", dir, dir, exe)
	check("empty", "", dir, dir, exe)
	must(os.Remove(filepath.Join(dir, "current")))
	must(os.Symlink("releases/43", filepath.Join(dir, "current")))
	check("another now", "current/app", dir, "", exe)

	t.Chdir(filepath.Join(dir, "releases/42"))
	check("here, by way of PATH", "app", filepath.Join(dir, "releases/42"), ".", filepath.Join(dir, "releases/42/app"))
}

func TestOpenBinary(t *testing.T) {
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
		{"directory", dir, dir + " is no file that could be a program", nil},
		{"fifo", fifo, fifo + " is no file that could be a program", nil},
		{"not executable", written(t, "x", []byte("#!/bin/sh"), 0o644), "/x is not executable: chmod +x it", nil},
		{"script", written(t, "x", []byte("#!/bin/sh"), 0o755), "/x is a script", nil},
		{"this one", self(t), "", nil},
		{"a copy", copied(t), "", nil},
	} {
		b, err := OpenBinary(tt.path)
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if flags, err := unix.FcntlInt(uintptr(b.FD()), unix.F_GETFD, 0); b.FD() < firstFD || err != nil || flags&unix.FD_CLOEXEC == 0 {
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
		return // who may read everything
	}
	if _, err := OpenBinary(written(t, "x", []byte("#!/bin/sh"), 0o100)); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod +r") {
		t.Error(err)
	}
}

func TestSame(t *testing.T) {
	path := copied(t)
	open := func(path string) *Binary {
		b, err := OpenBinary(path)
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

// What a file looks like that is no program, or not a whole one.
func TestCheckProgram(t *testing.T) {
	whole, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(whole, []byte(elfMagic)) {
		t.Skip("programs are of another format here")
	}
	changed := func(at int, value ...byte) []byte {
		return append(append(bytes.Clone(whole[:at]), value...), whole[at+len(value):]...)
	}
	begin := func(s string) []byte { return []byte(s) }
	h, _, _ := readELF(bytes.NewReader(whole))
	half := func(n uint16) []byte { return h.fields(nil).order.(binary.AppendByteOrder).AppendUint16(nil, n) }
	segments := 56 // where their number stands
	if !h.kind.wide {
		segments = 44
	}
	const part = "it was copied only in part"
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"whole", whole, ""},
		{"with something behind it", append(bytes.Clone(whole), "more"...), ""},
		{"script", begin("#!/bin/sh\nexit\n"), "is a script"},
		{"empty", nil, part},
		{"one byte", whole[:1], part},
		{"its first four bytes", whole[:4], part},
		{"half a header", whole[:30], part},
		{"its header", whole[:64], part},
		{"its half", whole[:len(whole)/2], part},
		{"all but a byte of its last section", whole[:lastByte(t, whole)-1], part},
		{"text", begin("hello, world\n"), `it begins with "hell"`},
		{"half of a script's mark", begin("#"), `it begins with "#"`},
		{"zeros", make([]byte, len(whole)), `it begins with "\x00`},
		{"another class", changed(4, 3-whole[4]), "another machine"},
		{"another order", changed(5, 3-whole[5]), "another machine"},
		{"another machine", changed(18, half(0xfefe)...), "ELF machine 65278, this process runs"},
		{"an object", changed(16, half(1)...), "no program but a part"},
		{"without segments", changed(segments, 0, 0), "no program but a part"},
		{"headers of another size", changed(segments-2, half(7)...), "headers have 7 bytes"},
		{"header, and zeros", append(bytes.Clone(whole[:64]), make([]byte, len(whole)-64)...), ""}, // that cannot be told
	} {
		err := checkProgram(bytes.NewReader(tt.file), int64(len(tt.file)), bytes.NewReader(whole))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := checkProgram(bytes.NewReader(nil), 0, bytes.NewReader([]byte("another format"))); err != nil {
		t.Errorf("where programs have another format: %v", err)
	}
	// The same through a file.
	path := written(t, "x", whole[:1000], 0o755)
	if _, err := OpenBinary(path); err == nil || !strings.HasPrefix(err.Error(), path+" ends at byte 1000 of ") {
		t.Error(err)
	}
}

// lastByte is where a program ends by what its own headers say.
func lastByte(t *testing.T, program []byte) int {
	h, _, err := readELF(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	end, err := h.end(bytes.NewReader(program), int64(len(program)))
	if err != nil || end > uint64(len(program)) {
		t.Fatalf("%d of %d, %v", end, len(program), err)
	}
	return int(end)
}

// Whatever a file holds, looking at it ends without a panic, and a refusal says why.
func FuzzCheckProgram(f *testing.F) {
	tiny := func(class, order byte) []byte {
		b := append([]byte(elfMagic), class, order, 1)
		return append(b, make([]byte, 64+56+64)...)
	}
	for _, class := range []byte{1, 2} {
		for _, order := range []byte{1, 2} {
			f.Add(tiny(class, order), tiny(class, order))
		}
	}
	f.Add([]byte("#!/bin/sh"), tiny(2, 1))
	f.Fuzz(func(t *testing.T, file, ours []byte) {
		for _, ours := range [][]byte{ours, file} { // its own machine is always the right one
			err := checkProgram(bytes.NewReader(file), int64(len(file)), bytes.NewReader(ours))
			if err != nil && err.Error() == "" {
				t.Error("no words")
			}
		}
	})
}
