// Package preforktest runs programs that start processes, such as those built
// on package prefork, in tests. It starts a program, waits for lines of its
// output, signals it, waits for its exit, and fails the test if anything is
// left behind.
//
// The program is usually the test binary itself, which runs a registered
// function instead of the tests:
//
//	func TestMain(m *testing.M) { preforktest.Main(m, nil) }
//
//	func init() { preforktest.Register("server", main) }
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
//	} // the test fails here if a worker is still running
//
// Workers that the program starts are the same binary with the same
// environment, and so run the same function.
//
// # Waiting
//
// Every method that waits does so for something that must happen. After 30
// seconds it fails the test and logs all output of the program. If the deadline
// of the test (go test -timeout) is near, it waits only nine tenths of the
// time that remains. Tests should neither choose timeouts nor sleep.
//
// # Skipped tests
//
// A registered program that no test starts fails a complete run, so that
// programs do not outlive their tests. A test that cannot run on some machines
// should be skipped by Skipf, NeedRoot or NeedCommand. Main then expects no use
// of the programs that are registered in the same file.
//
// In continuous integration, if the environment variable CI is "true",
// NeedCommand and Missingf fail the test instead of skipping it.
//
// # Faults
//
// A test can cause faults. Freeze stops a process. Program.StarveFiles and
// Program.StarveProcesses keep a program from starting others. Program.AsInit
// runs it as process 1. StartLoad sends requests at the same time and counts
// failures.
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
// The package reads /proc of Linux to examine processes that are not children
// of the test binary. On other systems the functions that need it return an
// error that matches errors.ErrUnsupported, and a leftover process is detected
// only if it keeps the program's output open. Zombies count only as children of
// a live process, because orphans are reaped by init. On Linux and FreeBSD a
// program is killed when the test binary exits for any reason.
package preforktest
