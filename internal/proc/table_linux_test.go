package proc

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("descriptors", descriptorsProgram) }

// descriptorsProgram prints the numbers of its descriptors. It omits those of the
// Go runtime: its poller and the limits of the cgroup.
func descriptorsProgram() {
	poller := true // one epoll is the runtime's
	files := openFiles()
	for _, fd := range slices.Sorted(maps.Keys(files)) {
		switch name := files[fd]; {
		case poller && name == "anon_inode:[eventpoll]":
			poller = false
		case strings.HasPrefix(name, "anon_inode:[eventfd"), strings.HasPrefix(name, "/sys/fs/cgroup/"):
		default:
			fmt.Print(fd, " ")
		}
	}
	fmt.Println()
}

func TestDescriptorsOfTheProcess(t *testing.T) {
	for fd := range openFiles() {
		if fd > 2 { // perhaps inherited from the program that started the tests
			unix.CloseOnExec(fd)
		}
	}
	extra, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	eachTable(t, func(t *testing.T, o *owner) {
		neighbour := o.start("exit", []string{"0"}) // has descriptors in the parent
		for _, last := range []int{3, 4, 9} {
			c := o.start("descriptors", nil, func(s *Spec) {
				for len(s.Files) <= last {
					s.Files = append(s.Files, extra.Fd())
				}
				s.Control = last
			})
			want := ""
			for i := range last + 1 {
				want += strconv.Itoa(i) + " "
			}
			c.expect(want)
			c.reap()
		}
		neighbour.in.Close()
		neighbour.reap()
	})
}

func TestNothingLeaks(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		succeed := func(die bool) {
			c := o.startSpec(Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, DieWithParent: die})
			c.expectEnd()
			c.reap()
		}
		fail := func(die bool) {
			spec := Spec{Path: "/nonexistent", Files: []uintptr{0, 1, 2, 0}, Control: 3, DieWithParent: die}
			if _, err := o.Start(1<<40, spec); err == nil {
				t.Fatal("started a file that does not exist")
			}
		}
		succeed(false)
		before := openFiles()
		for range 50 {
			succeed(true)
			succeed(false)
			fail(true)
			fail(false)
		}
		if after := openFiles(); len(after) != len(before) {
			t.Errorf("open before: %v\nafter: %v", before, after)
		}
	})
}

func init() { preforktest.Register("starved", starvedProgram) }

// starvedProgram starts processes with a limit of 0, 1, 2 ... additional
// descriptors until one start succeeds.
func starvedProgram() {
	notes := make(chan Note, 10)
	table := newTable(os.Args[1], func(n Note) { notes <- n })
	var old unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	before := openFiles()
	failures := 0
	for room := 0; ; room++ {
		highest, err := unix.Dup(0) // all lower numbers are open
		check(err)
		unix.Close(highest)
		check(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(highest + room), Max: old.Max}))
		p, err := table.Start(uint64(room), Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 4"}, Files: []uintptr{0, 1, 2, 0}, Control: 3})
		check(unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
		if err == nil {
			for n := range notes {
				if n.Kind == Exited {
					break
				}
			}
			status, _, ok := p.Reap()
			fmt.Println(failures >= 3, status, ok, len(openFiles())-len(before))
			return
		}
		if !errors.Is(err, syscall.EMFILE) || len(openFiles()) != len(before) {
			fmt.Printf("room %d: %v; open before %v, after %v\n", room, err, before, openFiles())
		}
		failures++
	}
}

func TestNoDescriptorsLeft(t *testing.T) {
	for _, name := range tableNames {
		t.Run(name, func(t *testing.T) {
			if out, want := run(t, "starved", name), "true exit code 4 true 0"; out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}

// A process that cannot be watched is killed.
func TestRegistrationFails(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	o := newOwner(t, "pidfd")
	table := o.Table.(*pidfdTable)
	epfd := table.epfd
	defer func() { table.epfd = epfd }()
	before := openFiles()
	table.epfd = int(null.Fd())
	r, w := pipe(t)
	p, err := o.Start(1, Spec{Path: "/bin/cat", Args: []string{"cat"}, Files: []uintptr{r.Fd(), w.Fd(), 2, 0}, Control: 3, DieWithParent: true})
	if p != nil || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("%v, %v; want EINVAL of epoll_ctl", p, err)
	}
	r.Close()
	w.Close()
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("leftover process: %v", err)
	}
	if after := openFiles(); len(after) != len(before) {
		t.Errorf("open before: %v\nafter: %v", before, after)
	}
	if table.spawner.tied != 0 {
		t.Errorf("%d processes tied to the thread", table.spawner.tied)
	}
}

// A Start that received no pidfd opens one by the pid.
func TestNoPidfdFromClone(t *testing.T) {
	o := newOwner(t, "pidfd")
	table := o.Table.(*pidfdTable)
	spec := Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 6"}}
	child, err := table.spawner.spawn(spec, sysProcAttr(spec))
	if err != nil {
		t.Fatal(err)
	}
	p := &pidfdProcess{t: table, id: 9, pid: child.pid, pidfd: -1, control: -1}
	if err := p.register(); err != nil {
		t.Fatal(err)
	}
	o.await(Note{9, Exited})
	if status, _, ok := p.Reap(); !ok || status.Code != 6 {
		t.Error(status, ok)
	}
}

func init() { preforktest.Register("family", familyProgram) }

// familyProgram starts an echo process with the same standard input and
// output from a goroutine whose thread exits. Then it waits to be killed. With
// the argument "echo" it is the echo process.
func familyProgram() {
	if os.Args[1] == "echo" {
		echoProgram()
		return
	}
	table := newTable(os.Args[1], func(Note) {})
	for {
		tid := make(chan int)
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine, unless it is the first
			self, err := os.Executable()
			check(err)
			if unix.Gettid() != os.Getpid() {
				p, err := table.Start(1, Spec{Path: self, Args: []string{self, "echo"}, Env: os.Environ(), Files: []uintptr{0, 1, 2, 0}, Control: 3, DieWithParent: os.Args[2] == "true"})
				check(err)
				fmt.Println(p.Pid())
			}
			tid <- unix.Gettid()
		}()
		if id := <-tid; id != os.Getpid() {
			for unix.Tgkill(os.Getpid(), id, 0) == nil { // no event reports the exit of a thread
				time.Sleep(time.Millisecond)
			}
			break
		}
	}
	fmt.Println("thread exited")
	time.Sleep(2 * limit) // an empty select would be a deadlock after the process has exited
}

func TestDieWithParent(t *testing.T) {
	for _, name := range tableNames {
		for _, die := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", name, die), func(t *testing.T) { testDieWithParent(t, name, die) })
		}
	}
}

func testDieWithParent(t *testing.T, name string, die bool) {
	adoptOrphans()
	inR, in := pipe(t)
	p := preforktest.New(t, "family", name, strconv.FormatBool(die))
	p.Cmd.Stdin = inR
	p.Start()
	inR.Close()

	pid := familyPid(t, p)
	ping := func() {
		t.Helper()
		fmt.Fprintln(in, "ping")
		if got := p.NextLine(); got != "ping" {
			t.Fatalf("echo prints %q", got)
		}
	}
	ping()
	p.Kill()
	p.Wait()
	if !die {
		ping()
		in.Close()
	}
	p.WaitGone()
	if lines := p.Lines(); lines[len(lines)-1] != "ping" {
		t.Errorf("output %q, want nothing after the last ping", lines)
	}
	var ws syscall.WaitStatus
	err := error(syscall.EINTR)
	for err == syscall.EINTR {
		_, err = syscall.Wait4(pid, &ws, 0, nil)
	}
	// ECHILD: a thread of the parent that waits for the process can reap it
	// while the parent dies.
	switch {
	case die && err == syscall.ECHILD:
	case err != nil, die && ws.Signal() != syscall.SIGKILL, !die && ws.Signaled():
		t.Errorf("the process exited with %#x, %v", int(ws), err)
	}
}

// familyPid reads the output of the program family and returns the pid of the
// echo process, which prints to the same pipe.
func familyPid(t *testing.T, p *preforktest.Program) (pid int) {
	t.Helper()
	var texts []string
	for range 3 {
		text := p.NextLine()
		if n, err := strconv.Atoi(text); err == nil {
			pid = n
		} else {
			texts = append(texts, text)
		}
	}
	slices.Sort(texts)
	if pid == 0 || !slices.Equal(texts, []string{"thread exited", "up"}) {
		t.Fatalf("pid %d, %q", pid, texts)
	}
	return pid
}

func init() { preforktest.Register("crowd", crowdProgram) }

// crowdProgram starts the number of processes in its argument and prints
// the number of its threads.
func crowdProgram() {
	size, _ := strconv.Atoi(os.Args[1])
	notes := make(chan Note, 10*size)
	table := newTable("pidfd", func(n Note) { notes <- n })
	r, w, err := os.Pipe()
	check(err)
	procs := make(map[uint64]Process)
	for id := range uint64(size) {
		procs[id], err = table.Start(id, Spec{Path: "/bin/cat", Args: []string{"cat"}, Files: []uintptr{r.Fd(), 1, 2, 0}, Control: 3, DieWithParent: id%2 == 0})
		check(err)
	}
	threads, err := preforktest.Threads(os.Getpid())
	check(err)
	fmt.Println(threads)
	w.Close()
	for len(procs) > 0 {
		if n := <-notes; n.Kind == Exited {
			if status, _, ok := procs[n.ID].Reap(); !ok || !status.Clean() {
				fmt.Println(n.ID, status, ok)
			}
			delete(procs, n.ID)
		}
	}
}

func TestThreads(t *testing.T) {
	out := run(t, "crowd", "300")
	if threads, err := strconv.Atoi(out); err != nil || threads > 15 {
		t.Errorf("300 processes take %q threads", out)
	}
}

func init() { preforktest.Register("reserve", reserveProgram) }

// reserveProgram prints whether it has the reserved threads before and
// after ReserveThreads.
func reserveProgram() {
	n := min(runtime.GOMAXPROCS(0), 16) + 8
	before, err := preforktest.Threads(os.Getpid())
	check(err)
	ReserveThreads()
	after, err := preforktest.Threads(os.Getpid())
	check(err)
	fmt.Println(before >= n, after >= n)
}

func TestReserveThreads(t *testing.T) {
	if out, want := run(t, "reserve"), "false true"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestToken(t *testing.T) {
	for _, note := range []Note{{0, Readable}, {0, Exited}, {1, Readable}, {1<<31 + 5, Exited}, {1<<62 - 1, Exited}, {1<<62 - 1, Readable}, {1<<62 - 1, Exiting}} {
		if got := noteOf(event(note)); got != note {
			t.Errorf("%+v becomes %+v", note, got)
		}
	}
}
