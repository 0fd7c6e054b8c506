package job

// LeastInodes is how many inodes must be free on a file system that has total of them, or a job
// that writes to it is stopped: 1 % of them, at most 10,000, which is more than FFmpeg uses up
// between two checks. 0 where the number is not fixed: total is 0.
func LeastInodes(total uint64) uint64 { return min(total/100, 10_000) }

// InodesToStart is how many inodes must be free where the workspaces are for a job to be taken:
// twice those at which it is stopped, so that none is taken only to be stopped at once.
func InodesToStart(total uint64) uint64 { return 2 * LeastInodes(total) }
