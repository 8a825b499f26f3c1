#version 450
/* Reads the host's word until it is not 0: work that does not end while the host does not
 * want it to. The rounds are so many that only a test that failed sees their end. */
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require

layout(local_size_x = 1) in;

layout(buffer_reference, std430, buffer_reference_align = 4) volatile coherent buffer Word {
    uint value;
    uint rounds; /* counted with an atomic operation, over which no compiler moves the read */
};

layout(push_constant) uniform Push {
    uvec2 word;
    uint rounds;
    uint unused;
} p;

void main()
{
    Word word = Word(p.word);
    for (uint i = 0; i < p.rounds && word.value == 0; i++)
        atomicAdd(word.rounds, 1);
}
