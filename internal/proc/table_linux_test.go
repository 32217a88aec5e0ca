package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The program descriptors prints the numbers of its descriptors.
var descriptorsProgram = program("descriptors", func([]string) {
	for _, f := range openFiles() {
		fmt.Print(strings.Fields(f)[0], " ")
	}
	fmt.Println()
})

func TestDescriptorsOfTheProcess(t *testing.T) {
	extra, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	eachTable(t, func(t *testing.T, o *owner) {
		neighbour := o.start(exitProgram, []string{"0"}) // has descriptors in the parent
		for _, last := range []int{3, 4, 9} {
			c := o.start(descriptorsProgram, nil, func(s *Spec) {
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
			t.Errorf("open before: %q\nafter: %q", before, after)
		}
	})
}

// The program starved starts processes with a limit of 0, 1, 2 ... additional
// descriptors until one start succeeds.
var starvedProgram = program("starved", func(args []string) {
	notes := make(chan Note, 10)
	table := newTable(args[0], func(n Note) { notes <- n })
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
			fmt.Printf("room %d: %v; open before %q, after %q\n", room, err, before, openFiles())
		}
		failures++
	}
})

func TestNoDescriptorsLeft(t *testing.T) {
	for _, name := range tableNames {
		t.Run(name, func(t *testing.T) {
			if out, want := run(t, starvedProgram, name), "true exit code 4 true 0\n"; out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}

// run runs a program until it exits and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = programEnv(name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v after %q", name, err, out)
	}
	return string(out)
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
		t.Errorf("open before: %q\nafter: %q", before, after)
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

// The program family starts an echo process with the same standard input and
// output from a goroutine whose thread exits. Then it waits to be killed.
var familyProgram = program("family", func(args []string) {
	table := newTable(args[0], func(Note) {})
	for {
		tid := make(chan int)
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine, unless it is the first
			self, err := os.Executable()
			check(err)
			if unix.Gettid() != os.Getpid() {
				p, err := table.Start(1, Spec{Path: self, Env: programEnv(echoProgram), Files: []uintptr{0, 1, 2, 0}, Control: 3, DieWithParent: args[1] == "true"})
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
})

func TestDieWithParent(t *testing.T) {
	for _, name := range tableNames {
		for _, die := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", name, die), func(t *testing.T) { testDieWithParent(t, name, die) })
		}
	}
}

func testDieWithParent(t *testing.T, name string, die bool) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inR, in := pipe(t)
	out, outW := pipe(t)
	parent := exec.Command(self, name, strconv.FormatBool(die))
	parent.Env = programEnv(familyProgram)
	parent.Stdin, parent.Stdout, parent.Stderr = inR, outW, os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		parent.Process.Kill()
		parent.Wait()
	})
	inR.Close()
	outW.Close()

	lines := bufio.NewReader(out)
	pid := familyPid(t, lines)
	ping := func() {
		t.Helper()
		fmt.Fprintln(in, "ping")
		if got := line(t, lines); got != "ping" {
			t.Fatalf("echo prints %q", got)
		}
	}
	ping()
	parent.Process.Kill()
	parent.Wait()
	if !die {
		ping()
		in.Close()
	}
	if got := line(t, lines); got != "EOF" {
		t.Errorf("got %q, want EOF", got)
	}
	var ws syscall.WaitStatus
	for err = syscall.EINTR; err == syscall.EINTR; {
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
func familyPid(t *testing.T, lines *bufio.Reader) (pid int) {
	t.Helper()
	var texts []string
	for range 3 {
		text := line(t, lines)
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

// The program crowd starts the number of processes in its argument and prints
// the number of its threads.
var crowdProgram = program("crowd", func(args []string) {
	size, _ := strconv.Atoi(args[0])
	notes := make(chan Note, 10*size)
	table := newTable("pidfd", func(n Note) { notes <- n })
	r, w, err := os.Pipe()
	check(err)
	procs := make(map[uint64]Process)
	for id := range uint64(size) {
		procs[id], err = table.Start(id, Spec{Path: "/bin/cat", Args: []string{"cat"}, Files: []uintptr{r.Fd(), 1, 2, 0}, Control: 3, DieWithParent: id%2 == 0})
		check(err)
	}
	fmt.Println(threadCount())
	w.Close()
	for len(procs) > 0 {
		if n := <-notes; n.Kind == Exited {
			if status, _, ok := procs[n.ID].Reap(); !ok || !status.Clean() {
				fmt.Println(n.ID, status, ok)
			}
			delete(procs, n.ID)
		}
	}
})

// threadCount returns the number of threads of this process.
func threadCount() int {
	tasks, err := os.ReadDir("/proc/self/task")
	check(err)
	return len(tasks)
}

func TestThreads(t *testing.T) {
	out := run(t, crowdProgram, "300")
	if threads, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || threads > 15 {
		t.Errorf("300 processes take %q threads", out)
	}
}

// The program reserve prints whether it has the reserved threads before and
// after ReserveThreads.
var reserveProgram = program("reserve", func([]string) {
	n := min(runtime.GOMAXPROCS(0), 16) + 8
	before := threadCount() >= n
	ReserveThreads()
	fmt.Println(before, threadCount() >= n)
})

func TestReserveThreads(t *testing.T) {
	if out, want := run(t, reserveProgram), "false true\n"; out != want {
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
