//go:build unix

package launch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Each way in which a Command's file cannot be executed has its own words.
func TestExplainCommand(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		want  string
		errno syscall.Errno
	}{
		"no interpreter":      {"#!/no/such/perl -w\n", "its interpreter /no/such/perl does not exist", syscall.ENOENT},
		"CR":                  {"#!/bin/sh\r\nexit 0\r\n", "its first line ends with CR", syscall.ENOENT},
		"no #!":               {"exit 0\n", "a script must begin with #!", syscall.ENOEXEC},
		"#! alone":            {"#!\n", "its first line names no interpreter", syscall.ENOEXEC},
		"empty":               {"", "the file is empty", syscall.ENOEXEC},
		"another machine":     {"\x7fELF\x01\x02\x03 and nothing that fits\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "another kind of machine", syscall.ENOEXEC},
		"not executable":      {"#!/etc/passwd\n", "interpreter /etc/passwd may not be executed", syscall.EACCES},
		"a directory between": {"#!/etc/passwd/sh\n", "", syscall.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "server")
			if err := os.WriteFile(path, []byte(c.file), 0o755); err != nil {
				t.Fatal(err)
			}
			err := exec.Command(path).Run()
			got := ExplainCommand("", "", err)
			if !errors.Is(got, c.errno) || !strings.Contains(got.Error(), c.want) || !strings.Contains(got.Error(), path) {
				t.Errorf("%v, want %q", got, c.want)
			}
			// A first step reports the errno alone.
			plan := Plan{Args: []string{path}}
			if err := plan.NotStarted(c.errno, ""); err == nil || err.Error() != got.Error() || !errors.Is(err, c.errno) {
				t.Errorf("of a step: %v, want %v", err, got)
			}
		})
	}
	busy := &os.PathError{Op: "fork/exec", Path: "/x", Err: syscall.ETXTBSY}
	if err := ExplainCommand("", "", busy); !errors.Is(err, syscall.ETXTBSY) || !strings.Contains(err.Error(), "open for writing") {
		t.Errorf("busy: %v", err)
	}
	if err := ExplainCommand("", "", nil); err != nil {
		t.Errorf("nil: %v", err)
	}
}
