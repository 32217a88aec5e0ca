//go:build unix

package scan

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestIgnored(t *testing.T) {
	for key, want := range map[string]bool{
		"web": false, "web.sh": false, "new": false, "rpm": false, "a.b.c": false, "#web": false, "web#": false, "49132": false, "5036": false, "tmp": false,
		".web": true, ".web.swp": true, "web.swp": true, "web.swx": true, "web~": true, "web.tmp": true, "web.bak": true, "web.orig": true,
		"web.rej": true, "web.new": true, "web.dpkg-new": true, "web.dpkg-old": true, "web.dpkg-tmp": true, "web.rpmsave": true, "web.rpmnew": true,
		"#web#": true, "4913": true, ".#web": true, ".web.AbCdEf": true, "~": true, "[web].tmp": true,
	} {
		if got := ignored(key); got != want {
			t.Errorf("ignored(%q) = %v", key, got)
		}
	}
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("program", 0o755)
	write("by others", 0o641)
	write("plain", 0o644)
	write("service/run", 0o700)
	write("no x/run", 0o644)
	os.MkdirAll(filepath.Join(dir, "run is a directory/run"), 0o755)
	os.Mkdir(filepath.Join(dir, "empty"), 0o755)
	link("to program", "program")
	link("to service", "service")
	link("to plain", "plain")
	link("to nothing", "nothing")
	link("below a file", "plain/x")
	link("loop", "loop")
	os.Mkdir(filepath.Join(dir, "linked run"), 0o755)
	link("linked run/run", "../program")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		want   state
		link   bool
		reason string
	}{
		{"program", program, false, ""},
		{"by others", program, false, ""},
		{"plain", other, false, "not executable"},
		{"service", service, false, ""},
		{"linked run", service, false, ""},
		{"no x", noRun, false, "its run is not executable"},
		{"run is a directory", noRun, false, "its run is not a file"},
		{"empty", noRun, false, "directory without run"},
		{"to program", program, true, ""},
		{"to service", service, true, ""},
		{"to plain", other, true, "not executable"},
		{"to nothing", other, true, "symbolic link to a file that is not there"},
		{"below a file", other, true, "symbolic link to a file that is not there"},
		{"loop", other, true, "symbolic link to itself"},
		{"fifo", other, false, "neither a file nor a directory"},
		{"nothing", gone, false, ""},
	} {
		f, link := look(dir, c.name)
		if f.state != c.want || link != c.link || f.reason != c.reason {
			t.Errorf("%s: %+v, link %v; want state %d, %v, %q", c.name, f, link, c.want, c.link, c.reason)
		}
	}
	direct, _ := look(dir, "program")
	linked, _ := look(dir, "to program")
	if direct != linked {
		t.Errorf("a link is %+v, its target %+v", linked, direct)
	}
	before, _ := look(dir, "service")
	write("service/finish", 0o755)
	write("service/run", 0o755)
	if after, _ := look(dir, "service"); after != before {
		t.Errorf("a service directory changed from %+v to %+v by files in it", before, after)
	}
}
