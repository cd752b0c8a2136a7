//go:build !linux

package main

import (
	"errors"
	"os"
	"runtime"
	"time"
)

var errLinux = errors.New("other processes can be measured on Linux only: run bench there")

func cpuTime(int) (time.Duration, error)        { return 0, errLinux }
func memory(int) (now, peak float64, err error) { return 0, 0, errLinux }
func load() string                              { return "unknown" }
func cpuModel() string                          { return "unknown" }
func kernel() string                            { return runtime.GOOS }
func stop(*os.Process) error                    { return errLinux }
func cont(*os.Process) error                    { return errLinux }
