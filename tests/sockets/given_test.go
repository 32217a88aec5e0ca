//go:build unix

package sockets_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// The file of a unix socket from start_server or systemd belongs to them: the
// manager leaves it in place at its end.
func TestGivenSocketFileStays(t *testing.T) {
	for _, from := range []string{"start_server", "systemd"} {
		t.Run(from, func(t *testing.T) {
			path := filepath.Join(testprog.SocketDir(t), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			file, err := ln.(*net.UnixListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			prelude := "LISTEN_PID=$$ LISTEN_FDS=1"
			if from == "start_server" {
				prelude = "SERVER_STARTER_PORT='" + path + "=3' SERVER_STARTER_GENERATION=1"
			}
			sh, err := exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			p := preforktest.New(t, "echo", "unix "+path)
			p.Cmd.Args = []string{"sh", "-c", prelude + ` exec "$0" "$@"`, p.Cmd.Path, "unix " + path}
			p.Cmd.Path, p.Cmd.ExtraFiles = sh, []*os.File{file}
			p.Start()
			p.ExpectN(2, `^up 1$`)
			if got, err := ask("unix", path, ""); err != nil || got != "generation 1\n" {
				t.Errorf("%q, %v", got, err)
			}
			p.Signal(term)
			testprog.ExpectSuccess(t, p)
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the manager has removed the file: %v", err)
			}
		})
	}
}
