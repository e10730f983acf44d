/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels take, without their launches: a stream's work captured once and replayed. */
#pragma once

#include <algorithm>
#include <vector>

#include "fixture.cuh"

/* End the stream's capture and replay it. Return: ms of each of 20 replays, ascending. */
static std::vector<float> time_captured(cudaStream_t stream) {
        std::vector<float> times;
        cudaEvent_t events[2];
        cudaGraphExec_t exec;
        cudaGraph_t graph;

        CHECK(cudaStreamEndCapture(stream, &graph));
        CHECK(cudaGraphInstantiate(&exec, graph, 0));
        for (cudaEvent_t &event : events)
                CHECK(cudaEventCreate(&event));
        for (int i = 0; i < 25; i++) {
                float ms;

                CHECK(cudaEventRecord(events[0], stream));
                CHECK(cudaGraphLaunch(exec, stream));
                CHECK(cudaEventRecord(events[1], stream));
                CHECK(cudaStreamSynchronize(stream));
                CHECK(cudaEventElapsedTime(&ms, events[0], events[1]));
                if (i >= 5) /* warm */
                        times.push_back(ms);
        }
        std::sort(times.begin(), times.end());
        for (cudaEvent_t &event : events)
                CHECK(cudaEventDestroy(event));
        CHECK(cudaGraphExecDestroy(exec));
        CHECK(cudaGraphDestroy(graph));
        return times;
}
