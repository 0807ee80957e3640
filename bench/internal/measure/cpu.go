package measure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is the unit of CPU time in /proc, 100 a second on every Linux there is.
const tick = 10 * time.Millisecond

// ProcessCPU is the CPU time, user and system, that a process has used since its start,
// in steps of 10 ms.
func ProcessCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything; fields are counted after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("CPU time of process %d: %q has too few fields", pid, stat)
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// OwnCPU is the CPU time of this process, exactly.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineCPU is the CPU time that all processes together have used since the boot.
func machineCPU() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// Quiet waits until the machine has been nearly idle for half a second, at most for
// limit, and reports how long that took and whether it came to it.
func Quiet(limit time.Duration) (waited time.Duration, quiet bool) {
	const look = 500 * time.Millisecond
	started := time.Now()
	for {
		before, err := machineCPU()
		if err != nil {
			return time.Since(started), true
		}
		time.Sleep(look)
		after, err := machineCPU()
		if err != nil || after-before < look*15/100 {
			return time.Since(started), true
		}
		if time.Since(started) >= limit {
			return time.Since(started), false
		}
	}
}
