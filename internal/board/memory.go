package board

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
)

// memoryPeriod is how often the manager measures the memory of its workers.
const memoryPeriod = 2 * time.Second

// CheckMemory returns the workers that use more memory than their MaxMemory,
// and when it measures next. Before that time it measures nothing.
func (b *Board) CheckMemory(now pool.Time, workers func(yield func(*Worker) bool)) (events []Event, next pool.Time) {
	if !b.cfg.Memory {
		return nil, pool.Never
	}
	if b.nextMeasurement > now {
		return nil, b.nextMeasurement
	}
	b.nextMeasurement = now + memoryPeriod
	for w := range workers {
		if privateMemory(w.PID) > w.MaxMemory {
			events = append(events, Event{TooBig, w.ID})
		}
	}
	return events, b.nextMeasurement
}

// privateMemory returns how many bytes of memory a process shares with no
// other; 0 if the system does not report it.
func privateMemory(pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(statm))
	if err != nil || len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(fields[1], 10, 64)
	shared, _ := strconv.ParseInt(fields[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}
