package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// cpuTime is how much CPU a process has used so far, user and system, all threads, to the
// nanosecond: the clock that clock_getcpuclockid(3) names.
func cpuTime(pid int) (time.Duration, error) {
	const cpuClockSched = 2
	var ts syscall.Timespec
	id := uintptr(uint32(^int32(pid)<<3 | cpuClockSched))
	_, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0)
	if e != 0 {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, e)
	}
	return time.Duration(ts.Nano()), nil
}

// peakMemory is the largest that a process's resident set has been, in bytes.
func peakMemory(pid int) float64 {
	const name = "VmHWM:"
	for line := range bytes.Lines(get(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)))) {
		if rest, ok := strings.CutPrefix(string(line), name); ok {
			return 1024 * get(
				strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64),
			)
		}
	}
	panic(failure{fmt.Errorf("process %d has no %s", pid, name)})
}

// load is the machine's load over 1, 5 and 15 minutes.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

// machine is the processor and the kernel.
func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := bytes.Cut(info, []byte("model name\t: "))
	model, _, _ = bytes.Cut(model, []byte("\n"))
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, Linux %s", model, bytes.TrimSpace(kernel))
}
