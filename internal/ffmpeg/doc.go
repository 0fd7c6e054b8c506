// Package ffmpeg turns a job into one FFmpeg process and what that process made
// into a checked output: parameters to argument vector, workspace and synthetic
// input, the process and its progress, checks, quality, and why an attempt failed.
//
// It knows no master and no energy, keeps no record of its own beyond the
// workspace, and decides nothing about retries: it says what happened.
//
// Every process it starts lies in its own process group, runs without the agent's
// environment and dies with the agent.
package ffmpeg
