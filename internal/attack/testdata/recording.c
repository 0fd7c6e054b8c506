// An FFmpeg that appends to a file the arguments in which a word occurs, one call a line, and
// encodes nothing: it fails where it would, and is the real FFmpeg otherwise.
//
// Compiled with RECORD (the file), WORD and FFMPEG.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int encodes = 0, found = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-progress") == 0) encodes = 1;
        if (strstr(argv[i], WORD)) found = 1;
    }
    FILE *record = found || encodes ? fopen(RECORD, "a") : NULL;
    if (record) {
        fprintf(record, "%s", encodes ? "encode" : "other");
        for (int i = 1; found && i < argc; i++)
            if (strstr(argv[i], WORD)) fprintf(record, "\t%s\t%s", argv[i - 1], argv[i]);
        fprintf(record, "\n");
        fclose(record);
    }
    if (encodes) return 1;
    argv[0] = FFMPEG;
    execv(FFMPEG, argv);
    perror(FFMPEG);
    return 1;
}
