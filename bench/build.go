//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// builds holds the programs to measure, each built when a row first needs it.
type builds struct {
	dir  string
	done map[string]string
}

// program builds one of the directories below program, with or without cgo, and
// returns the file.
func (b *builds) program(name string, cgo bool) (string, error) {
	file := filepath.Join(b.dir, name)
	env := append(os.Environ(), "CGO_ENABLED=0")
	if cgo {
		if _, err := exec.LookPath("gcc"); err != nil {
			return "", &notInstalled{"gcc", "cgo requires it: apt-get install gcc libc6-dev"}
		}
		file += "-cgo"
		env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if b.done[file] != "" {
		return file, nil
	}
	if err := b.build(file, "bench/program/"+name, env); err != nil {
		return "", err
	}
	return file, nil
}

// command builds a command of this repository.
func (b *builds) command(name string) (string, error) {
	file := filepath.Join(b.dir, "command-"+name)
	if b.done[file] != "" {
		return file, nil
	}
	return file, b.build(file, "cmd/"+name, append(os.Environ(), "CGO_ENABLED=0"))
}

func (b *builds) build(file, path string, env []string) error {
	cmd := exec.Command("go", "build", "-o", file, "github.com/prefork-go/prefork/"+path)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("build the programs to measure: %w", err)
	} else if err != nil {
		return fmt.Errorf("build %s (run bench from the root of the repository): %w\n%s", path, err, out)
	}
	if b.done == nil {
		b.done = map[string]string{}
	}
	b.done[file] = file
	return nil
}
