//go:build unix

package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("operate", main) }

// With the one line, a client sees the workers, reloads them and stops the program.
func TestOperate(t *testing.T) {
	dir := testprog.SocketDir(t)
	p := preforktest.New(t, "operate", "-listen", "127.0.0.1:0")
	p.Cmd.Env = append(p.Cmd.Env, "RUNTIME_DIRECTORY="+dir, client.EnvSocket+"=", "NOTIFY_SOCKET=")
	p.Start()
	p.Expect("^serving on http://127.0.0.1:")
	ctx := context.Background()
	c, err := client.Dial(filepath.Join(dir, "operate.prefork.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Wait(ctx, "settled", "", time.Minute); err != nil || !ok {
		t.Fatalf("settled: %t, %v", ok, err)
	}
	for _, command := range []string{"reload", "stop"} {
		if a, err := c.Do(ctx, client.Command{Name: command}); err != nil || a.Outcome != client.Done {
			t.Errorf("%s: %+v, %v", command, a, err)
		}
	}
	testprog.ExpectSuccess(t, p)
}
