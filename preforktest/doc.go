// Package preforktest helps to test programs that start processes of their own, such as those built on package
// prefork: it starts a program, waits for lines of its output, signals it, waits for its end, and fails the test
// when anything is left behind.
//
// The program is as a rule the test binary itself, which plays the part that Main is given under a name:
//
//	func TestMain(m *testing.M) {
//		preforktest.Main(m, map[string]func(){"server": main})
//	}
//
//	func TestReload(t *testing.T) {
//		p := preforktest.Start(t, "server", "-workers", "2")
//		p.ExpectN(2, `^ready$`)
//		p.Signal(syscall.SIGHUP)
//		p.Expect(`^generation (\d+)$`)
//		p.Signal(syscall.SIGTERM)
//		if state := p.Wait(); !state.Success() {
//			t.Errorf("server: %v", state)
//		}
//	} // if the server has left a worker behind, the test fails here
//
// Workers that the program starts are the same binary with the same environment, and so play the same part.
//
// # Waiting
//
// Every call that waits does so for a thing that must happen. It gives up, and fails the test with all that the
// program wrote, after 30 seconds, or when nine tenths of the time up to the test's deadline (go test -timeout) are
// over, if that is sooner. No test has to choose a time, and none has to sleep.
//
// # Faults
//
// A test can have things go wrong: Freeze stops a process, Program.StarveFiles and Program.StarveProcesses take from a program what
// it needs to start others, Program.AsInit runs it as process 1, and StartLoad sends requests from outside meanwhile and
// says which failed.
//
//	load := preforktest.StartLoad(t, 4, func(int) error { return get(address) })
//	restore := p.StarveFiles()
//	p.Signal(syscall.SIGHUP)
//	p.Expect(`spawn failed`)
//	restore()
//	p.Expect(`workers replaced`)
//	if r := load.Stop(); r.Failed > 0 {
//		t.Error(r)
//	}
//
// # Systems
//
// What a test learns about processes that are not its own children it learns from /proc of Linux. Elsewhere the
// functions that need it return an error that matches errors.ErrUnsupported, and a process left behind is noticed by
// the output that it keeps open. Zombies are seen as children of a living process alone: orphans are for init to wait for.
// On Linux and FreeBSD a program dies with the test binary, however that ends.
package preforktest
