// An FFmpeg that starts threads instead of encoding, as many as it gets up to MOST, and then
// goes on as the real FFmpeg.
//
// Compiled with MOST and FFMPEG.
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *rest(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        pthread_attr_t small;
        pthread_t thread;
        if (strcmp(argv[i], "-progress") != 0) continue;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 16384);
        for (int n = 0; n < MOST; n++)
            if (pthread_create(&thread, &small, rest, NULL) != 0) usleep(1000); // and tries again
    }
    argv[0] = FFMPEG;
    execv(FFMPEG, argv);
    perror(FFMPEG);
    return 1;
}
